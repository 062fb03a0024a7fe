#!/usr/bin/env python3
"""LangChain through a running gateway: one more client, which nobody wrote for it.

Usage: gateway_langchain.py http://127.0.0.1:GATEWAY
Prints one line a failure and at the end `N passed, N failed`.
"""

import sys
import traceback

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

MODELS = ["gpt-5.2", "claude-opus-5-5", "gemini-3.5-flash", "grok-4.5"]


class Answer(BaseModel):
    """What structured output must look like."""

    city: str
    days: int


@tool
def weather(city: str, days: int) -> str:
    """The weather."""
    return f"{city} {days}"


def openai_chat(gateway, model):
    chat = ChatOpenAI(model=model, api_key="k", base_url=f"{gateway}/v1", max_retries=0)
    assert chat.invoke("hi").content == "You said: hi"
    assert "".join(chunk.content for chunk in chat.stream("hi")) == "You said: hi"
    asked = [HumanMessage("call:weather")]
    called = chat.bind_tools([weather]).invoke(asked)
    assert called.tool_calls[0]["args"] == {"city": "text", "days": 1}, called
    asked += [called, ToolMessage("sunny", tool_call_id=called.tool_calls[0]["id"])]
    assert "sunny" in chat.bind_tools([weather]).invoke(asked).content
    assert chat.with_structured_output(Answer, method="json_schema").invoke("hi") == Answer(city="text", days=1)


def anthropic_chat(gateway, model):
    chat = ChatAnthropic(model=model, api_key="k", base_url=gateway, max_retries=0, max_tokens=500)
    assert chat.invoke("hi").content == "You said: hi"
    assert "".join(chunk.text for chunk in chat.stream("hi")) == "You said: hi"
    asked = [HumanMessage("call:weather")]
    called = chat.bind_tools([weather]).invoke(asked)
    assert called.tool_calls[0]["args"] == {"city": "text", "days": 1}, called
    asked += [called, ToolMessage("sunny", tool_call_id=called.tool_calls[0]["id"])]
    assert "sunny" in chat.bind_tools([weather]).invoke(asked).text


def main():
    """Runs every check."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    passed = failed = 0
    for function in (openai_chat, anthropic_chat):
        for model in MODELS:
            try:
                function(sys.argv[1].rstrip("/"), model)
                passed += 1
            except Exception:  # whatever it is, the others are still worth knowing
                failed += 1
                print(f"FAIL {function.__name__}[{model}]")
                traceback.print_exc(limit=3, file=sys.stdout)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
