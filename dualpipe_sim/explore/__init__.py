"""A live page on this machine: settings by slider, answers as charts, and the whole experiment in the URL.

A link is text: the name of a packaged configuration, or YAML in full, and settings (``link``). From it follows all that
the page shows (``answer``) and gives (``downloads``), in worker processes that a clock watches, behind a few routes
(``server``). Starlette and uvicorn are used here and by nobody else.
"""
