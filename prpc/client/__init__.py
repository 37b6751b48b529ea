"""The client's wing: what calls functions.

`client.py` the pump of one loop, `portal.py` the background loop of plain code, `channel.py` which pump serves whom,
`call.py` and `task.py` one call and its face, `many.py` many of them, `remote.py` what generated stubs are made of.
"""
