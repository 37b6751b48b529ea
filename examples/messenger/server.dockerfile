# The gateway, and with another command the worker. Build it from the project's root:
#   docker build -f examples/messenger/server.dockerfile -t messenger-server .
FROM python:3.12.8-slim-bookworm

ENV PYTHONUNBUFFERED=1
WORKDIR /app

COPY pyproject.toml README.md LICENSE ./
COPY prpc prpc
COPY examples/messenger/requirements.txt examples/messenger/
RUN pip install --no-cache-dir '.[kafka]' -r examples/messenger/requirements.txt

COPY examples/__init__.py examples/
COPY examples/messenger examples/messenger

USER nobody
EXPOSE 51075
CMD ["python", "-m", "examples.messenger.server.server"]
