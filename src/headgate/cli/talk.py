"""`chat`: a pipeline asked from the terminal."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headgate.cli.options import AsJson, ConfigFile, StateFolder
from headgate.cli.output import err, out, print_json
from headgate.core.clock import SystemClock
from headgate.core.errors import BadRequest, HeadgateError

if TYPE_CHECKING:
    from headgate.app.house import Places

_PATH = "/v1/chat/completions"


def chat(
    pipeline: Annotated[str, typer.Argument(help="The pipeline to ask.")],
    message: Annotated[
        str | None,
        typer.Argument(help="What to say. Left out: a conversation; or what is piped in.", show_default=False),
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message before all else.", show_default=False)] = None,
    temperature: Annotated[float | None, typer.Option(help="Chance in the answer.", show_default=False)] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer.", show_default=False)] = None,
    config: ConfigFile = None,
    state: StateFolder = None,
    as_json: AsJson = False,
) -> None:
    """Ask a pipeline over the local admin socket, without a key. The answer streams as it is made."""
    from headgate.app.opening import Where

    if message is None and not sys.stdin.isatty():
        message = sys.stdin.read().strip()
        if not message:
            raise BadRequest("Nothing to say: give a MESSAGE, or pipe one in.", param="message")
    options: dict[str, Any] = {"model": pipeline}
    options |= {"temperature": temperature} if temperature is not None else {}
    options |= {"max_tokens": max_tokens} if max_tokens is not None else {}
    messages = [{"role": "system", "content": system}] if system else []
    places = Where(config=config, state=state).places()
    if message is None:
        _converse(places, options, messages)
        return
    messages.append({"role": "user", "content": message})
    body = {**options, "messages": messages}
    if as_json:
        print_json(_plain(asyncio.run(_ask(places, "POST", _PATH, body))))
    else:
        asyncio.run(_stream(places, body))


def _converse(places: Places, options: dict[str, Any], messages: list[dict[str, str]]) -> None:
    """Turn after turn. Why not in one event loop: a line is awaited in the main thread, where Ctrl-C is heard."""
    asyncio.run(_ask(places, "GET", f"/v1/models/{options['model']}"))  # a wrong name is told before anything is typed
    err.print(f"Talking to [bold]{options['model']}[/]; an empty line or Ctrl-D ends it.")
    while True:
        try:
            said = out.input("[bold cyan]> [/]").strip()
        except EOFError:
            said = ""
        if not said:
            return
        messages.append({"role": "user", "content": said})
        try:
            answer = asyncio.run(_stream(places, {**options, "messages": messages}))
        except HeadgateError as error:
            messages.pop()
            err.print(error.message, style="red", markup=False)
            continue
        messages.append({"role": "assistant", "content": answer})


async def _ask(places: Places, method: str, path: str, body: object = None) -> dict[str, Any]:
    from headgate.app.local_admin import LocalAdmin

    async with LocalAdmin(places, SystemClock()) as admin:
        return await admin.ask(method, path, body)


async def _stream(places: Places, body: dict[str, Any]) -> str:
    """The answer, shown as it comes."""
    from headgate.app.local_admin import LocalAdmin

    parts: list[str] = []
    async with LocalAdmin(places, SystemClock()) as admin:
        async for event in admin.stream(_PATH, {**body, "stream": True}):
            for choice in event.get("choices") or ():
                text = choice.get("delta", {}).get("content")
                if text:
                    parts.append(text)
                    out.file.write(text)
                    out.file.flush()
    out.file.write("\n")
    return "".join(parts)


def _plain(answer: dict[str, Any]) -> dict[str, Any]:
    choice = answer["choices"][0]
    return {
        "id": answer.get("id"),
        "model": answer.get("model"),
        "content": choice["message"].get("content"),
        "finish_reason": choice.get("finish_reason"),
        "usage": answer.get("usage"),
    }
