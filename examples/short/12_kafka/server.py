"""A server over Kafka. Nothing in it says so: the environment does, for every program.

export PRPC_TYPE_BROKER=kafka PRPC_URL_BROKER=localhost:9092      (pip install 'prpc[kafka]')
"""

from prpc import AppServer

app = AppServer()


@app.function()
def summ(a: int | float, b: int | float, z: float = 0.5) -> float:
    """Add three numbers."""
    return a + b + z


@app.function()
def broker() -> str:
    """What this server talks to."""
    return app.settings.type_broker


if __name__ == "__main__":
    app.start()
