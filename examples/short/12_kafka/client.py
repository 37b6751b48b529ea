"""The first call again, over Kafka: the client is the same, too, and so is the generated server_func.py.

export PRPC_TYPE_BROKER=kafka PRPC_URL_BROKER=localhost:9092
"""

from server_func import broker, summ

print(summ(1, 2).result(timeout=20), "by", broker().result(timeout=20))
