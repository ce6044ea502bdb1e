"""YAML as it is meant: text to plain data and back, strictly.

PyYAML by itself reads `1e-4` as text, `no` as False, `010` as 8, `1:30` as 90, and lets the last of
two equal keys win. Here plain values are read by the rules of YAML 1.2 (its core schema: 1e-4 is a
float, `no` and 1:30 are text, 010 is ten), a key given twice is an error with its line, and anchors
and tags do not exist. What `write` writes is quoted wherever a reader of either version would take
text for something else.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from distill.errors import SettingsError

LONGEST_TEXT = 1_000_000  # characters
_TAG = "tag:yaml.org,2002:"
_CORE = {  # YAML 1.2.2, section 10.3.2
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
    r"|[-+]?(\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN",
}


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the resolvers of YAML 1.2."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - as the base class has it, to be filled


for _name, _pattern in _CORE.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), None)


def data(text: str, where: str = "settings") -> dict[str, Any]:
    """The mapping in a YAML text, as dicts, lists, text, numbers, booleans and None."""
    value = _data(text, where)
    if not isinstance(value, dict):
        content = "is empty" if value is None else f"holds {shown(value)}"
        raise SettingsError(f"{where}: {content}; it must hold keys and values")
    return value


def override(
    given: Mapping[str, object], changes: Mapping[str, str], where: str = "settings"
) -> dict[str, object]:
    """A copy with dotted keys set to YAML: {"train.seconds": "60", "losses.0.weight": "1"}."""
    changed: dict[str, object] = json.loads(json.dumps(given))
    for dotted, text in changes.items():
        holder: Any = changed
        *way, last = dotted.split(".")
        for name in way:
            if isinstance(holder, dict):
                holder = holder.setdefault(name, {})
            else:
                holder = holder[_index(holder, name, dotted, where)]
        if isinstance(holder, dict):
            holder[last] = _data(text, f"--set {dotted}")
        elif isinstance(holder, list):
            holder[_index(holder, last, dotted, where)] = _data(text, f"--set {dotted}")
        else:
            keyless = f"{'.'.join(way)} is {shown(holder)}, which has no keys"
            raise SettingsError(f"{where}: cannot set {dotted}: {keyless}")
    return changed


def _index(items: object, name: str, dotted: str, where: str) -> int:
    if isinstance(items, list) and name.isdigit() and int(name) < len(items):
        return int(name)
    raise SettingsError(f"{where}: cannot set {dotted}: {name} is no place in {shown(items)}")


def _data(text: str, where: str) -> object:
    if len(text) > LONGEST_TEXT:
        most = f"settings hold at most {LONGEST_TEXT}"
        raise SettingsError(f"{where}: has {len(text)} characters; {most}")
    try:
        for event in yaml.parse(text, Loader=_Loader):
            # an anchor or an alias
            if getattr(event, "anchor", None) and (mark := event.start_mark):
                fault = f"line {mark.line + 1} has an anchor (& or *)"
                raise SettingsError(f"{where}: {fault}; write it out")
        node = yaml.compose(text, Loader=_Loader)
        return None if node is None else _plain_node(node, where)
    except yaml.YAMLError as error:
        at = getattr(error, "problem_mark", None)
        line = f"line {at.line + 1}: " if at is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise SettingsError(f"{where}: {line}not YAML ({problem})") from error
    except RecursionError as error:
        shallow = "settings are a few levels deep"
        raise SettingsError(f"{where}: nested too deeply; {shallow}") from error


def _plain_node(node: yaml.Node, where: str) -> object:
    """A composed node as plain data; refuses doubled keys and tags beyond the core schema."""
    line = node.start_mark.line + 1
    kind = node.tag.removeprefix(_TAG)
    if isinstance(node, yaml.SequenceNode) and kind == "seq":
        return [_plain_node(item, where) for item in node.value]
    if isinstance(node, yaml.MappingNode) and kind == "map":
        mapping: dict[str, object] = {}
        for key_node, value_node in node.value:
            key, key_line = key_node.value, key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or not isinstance(key, str):
                raise SettingsError(f"{where}: line {key_line}: a key must be a word")
            if key in mapping:
                raise SettingsError(f"{where}: line {key_line}: {key} is given twice; keep one")
            mapping[key] = _plain_node(value_node, where)
        return mapping
    if isinstance(node, yaml.ScalarNode) and kind in ("str", *_CORE):
        return _scalar(node.value, kind, f"{where}: line {line}")
    raise SettingsError(f"{where}: line {line}: the tag !{kind} is not allowed; write plain values")


def _scalar(text: str, kind: str, where: str) -> object:
    if kind == "str":
        return text
    if not re.fullmatch(_CORE[kind], text):
        raise SettingsError(f"{where}: {text!r} is not a YAML {kind}")
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def shown(value: object) -> str:
    """A value as an error quotes it: short, with its kind when that is the point."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    quoted = text if len(text) <= 60 else text[:57] + "..."
    return quoted + (" (text)" if isinstance(value, str) else "")


class _Dumper(yaml.SafeDumper):
    """Quotes any text that some reader of YAML, 1.1 or 1.2, would take for something else."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    looks = any(re.fullmatch(pattern, text) for pattern in _CORE.values())
    return dumper.represent_scalar(_TAG + "str", text, style='"' if looks else None)


_Dumper.add_representer(str, _quoted)


def write(value: object) -> str:
    """Plain data as YAML text, keys in their order."""
    dump = functools.partial(yaml.dump, Dumper=_Dumper, sort_keys=False)
    return str(dump(value, width=110, default_flow_style=None, allow_unicode=True))
