# The HTTP client; it needs neither PRPC nor a broker. Build it from the project's root:
#   docker build -f examples/messenger/client.dockerfile -t messenger-client .
FROM python:3.12.8-slim-bookworm

ENV PYTHONUNBUFFERED=1
WORKDIR /app

COPY examples/messenger/requirements.txt examples/messenger/
RUN pip install --no-cache-dir -r examples/messenger/requirements.txt

COPY examples/__init__.py examples/
COPY examples/messenger/__init__.py examples/messenger/stopping.py examples/messenger/
COPY examples/messenger/proto examples/messenger/proto
COPY examples/messenger/client examples/messenger/client

USER nobody
EXPOSE 8080
CMD ["python", "-m", "examples.messenger.client.client"]
