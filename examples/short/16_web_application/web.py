"""A Starlette application as client: each request calls, and nothing blocks its event loop. `uvicorn web:web`

In FastAPI the handler's body is the same. A request that is cancelled cancels its call.
"""

from server_func import price
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def get_price(request: Request) -> JSONResponse:
    item = request.path_params["item"]
    try:
        return JSONResponse({"item": item, "price": await price.options(timeout=20)(item)})
    except KeyError:
        return JSONResponse({"error": f"no {item}"}, 404)
    except TimeoutError:
        return JSONResponse({"error": "try again later"}, 503)


web = Starlette(routes=[Route("/price/{item}", get_price)])
