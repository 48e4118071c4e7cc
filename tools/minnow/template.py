"""minnow's chat template (Jinja) and a Python renderer that writes exactly the same text.

Training documents are what `segments` gives: (text, trained?) pieces whose concatenation is the rendered chat.
Every assistant turn begins with a think block, empty when there was no thinking, so that the rendered history is
the very text the model wrote and a cached prefix stays valid.
"""
import json

TEMPLATE = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- '# Tools\\n' }}
    {%- for tool in tools %}
        {%- if tool.function is defined %}
            {{- tool.function | tojson }}
        {%- else %}
            {{- tool | tojson }}
        {%- endif %}
        {{- '\\n' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n<think>\\n' }}
        {%- if message.reasoning_content %}
            {{- message.reasoning_content }}
        {%- endif %}
        {{- '\\n</think>\\n\\n' }}
        {%- if message.content %}
            {{- message.content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if not loop.first or message.content %}
                    {{- '\\n' }}
                {%- endif %}
                {%- if tool_call.function is defined %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\\n{"name": "' + tool_call.name + '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is not defined or not enable_thinking %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""


def tojson(x):
    return json.dumps(x, ensure_ascii=False)


def system_turn(messages, tools):
    has = messages and messages[0]["role"] == "system"
    if tools:
        head = messages[0]["content"] + "\n\n" if has else ""
        lines = "".join(tojson(t.get("function", t)) + "\n" for t in tools)
        return "<|im_start|>system\n" + head + "# Tools\n" + lines + "<|im_end|>\n"
    return "<|im_start|>system\n" + messages[0]["content"] + "<|im_end|>\n" if has else ""


def assistant_body(m):
    """What follows the think block."""
    out = m.get("content") or ""
    for i, c in enumerate(m.get("tool_calls") or []):
        c = c.get("function", c)
        args = c["arguments"] if isinstance(c["arguments"], str) else tojson(c["arguments"])
        out += ("\n" if i or m.get("content") else "")
        out += '<tool_call>\n{"name": "' + c["name"] + '", "arguments": ' + args + "}\n</tool_call>"
    return out


def segments(messages, tools=None):
    """[(text, trained)] of a whole conversation; the model writes the trained pieces."""
    out = [(system_turn(messages, tools), False)]
    for i, m in enumerate(messages):
        role = m["role"]
        if role == "user" or (role == "system" and i > 0):
            out.append(("<|im_start|>" + role + "\n" + m["content"] + "<|im_end|>\n", False))
        elif role == "tool":
            out.append(("<|im_start|>user\n<tool_response>\n" + m["content"] + "\n</tool_response><|im_end|>\n", False))
        elif role == "assistant":
            thought = m.get("reasoning_content") or ""
            out.append(("<|im_start|>assistant\n", False))
            out.append(("<think>\n" + thought + "\n</think>\n\n", bool(thought)))
            out.append((assistant_body(m) + "<|im_end|>", True))
            out.append(("\n", False))
    return [s for s in out if s[0]]


def render(messages, tools=None, enable_thinking=False, add_generation_prompt=True):
    text = "".join(t for t, _ in segments(messages, tools))
    if add_generation_prompt:
        text += "<|im_start|>assistant\n" + ("" if enable_thinking else "<think>\n\n</think>\n\n")
    return text
