r"""A call without PRPC, as another language makes it: plain JSON goes into Redis, plain JSON comes out.

redis-cli XADD prpc_raw_task_prpc '*' message \
    '{"func_name": "summ", "func_args": [1, 2], "func_kwargs": {}, "message_id": "UUID"}'
redis-cli GET prpc_feedback_raw_task_prpc_UUID
"""

import json
import os
import time
import uuid

import redis

queue = os.environ.get("PRPC_QUEUE_NAME", "task_prpc")
broker = redis.Redis.from_url(os.environ.get("PRPC_URL_BROKER", "redis://localhost:6379/0"))


def call(name: str, *args: object, **kwargs: object) -> object:
    message_id = str(uuid.uuid4())
    message = {"func_name": name, "func_args": args, "func_kwargs": kwargs, "message_id": message_id}
    broker.xadd(f"prpc_raw_{queue}", {"message": json.dumps(message)})
    for _ in range(2000):
        answer = broker.getdel(f"prpc_feedback_raw_{queue}_{message_id}")
        if answer is not None:
            outcome = json.loads(answer)
            return outcome["exception_info"] or outcome["result"]
        time.sleep(0.01)
    raise TimeoutError(name)


with broker:
    print(call("summ", 1, 2, z=0))
    print(call("summ", 1))
