"""Removes from texts what looks like a secret."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from functools import partial
from typing import Final

from callback_core.tracking.key_forms import ADDRESS, KEY, PRIVATE_KEY, RUN, SHORTEST
from callback_core.tracking.secret_names import Verdict, verdict

REDACTED: Final = "[redacted]"

# Values that are no secrets, whatever their name is.
_NOTHING: Final = re.compile(
    r"(?i)true|false|none|null|yes|no|on|off|auto|automatic|default|required|optional|nan|str|string|bool|int|bytes|"
    r"\*+|\.{3}|</?[\w| .:/-]{1,60}>|<\|[^<>]*\|>|\[[a-z_ ]{1,30}\d*\]|"
    r"\$\{[^{}]+\}|\{\{[^{}'\"]+\}\}|\$[A-Z][A-Z0-9_]+"
)
_SCHEME: Final = re.compile(
    r"(?i)anonymous|api_?key|aws_?iam|azure_?ad|basic|bearer|cert(?:ificate)?|cookies?|digest|"
    r"gssapi|iam|jwt|kerberos|ldap|local|mtls|ntlm|oauth\d?|oidc|open_?id|pam|password|pat|saml|"
    r"ssh|sso|tls|tokens?|user|x509"
)
_PATH: Final = re.compile(
    r"(?:~|\.{1,2}|[A-Za-z]:)?(?:[/\\][\w.@ -]+){2,}[/\\]?|"
    r"(?:[~\w.-]*[/\\])*[\w.-]+\.(?:cer|cfg|crt|env|ini|json|key|p12|pem|pfx|pub|toml|txt|ya?ml)"
)
_MAY_BE_A_PATH: Final = re.compile(r"(?i)(?:auth|cookie|cred|credential|key|pwd|secret|token)s?$")
_DIRECTORY: Final = re.compile(r"(?:[/~]|[A-Za-z]:[/\\])[\w./\\ -]*")
_MAY_BE_A_NUMBER: Final = re.compile(r"(?i)(?:^|[\s_-])(?:auth|pass|token)$")
_NUMBER: Final = re.compile(r"[-+]?\d{1,6}(?:\.\d+)?")

_SHORTEST: Final = 5  # characters of a text with a secret: `pw=ab`

# Secrets in a text that only their surroundings show.
_USER_INFO: Final = re.compile(
    r"(?<![A-Za-z0-9])([A-Za-z][A-Za-z0-9+.-]{0,30})://(?!git@|\[)"
    r"((?:[^\s/:@'\"<>]{0,200}:(?!\d{1,5}[/?#])[^\s@'\"<>]{1,200}(?:@[^\s/?#@'\"<>]{1,200})*)|"
    r"[^/\s?#'\"<>]{1,300})@(?!sha256:)"
)
_PROXY: Final = re.compile(
    r"(?<![\w/.@-])[A-Za-z][\w.-]{0,60}:[^\s:@/'\",]{1,100}@(?=[\w.-]{1,100}:\d{2,5}\b)"
)
_QUERY: Final = re.compile(r"([?&#])([\w.-]{1,100})=([^&\s#'\"<>]+)")
_SIGNATURE: Final = re.compile(r"(?i)(?:^|[_-])(?:sig|signature|credential|hmac)$")
_SCHEME_AND_KEY: Final = re.compile(r"\b(?i:(basic)|bearer|token|apikey)[ \t]+([\w.~+/=-]{6,})")
_LOGIN: Final = re.compile(
    r"(?i)(\bwandb\s+login\s+(?:--?\w[\w-]*(?:=\S+)?\s+)*|"
    r"\blogin\s+\S+\s+password\s+|"  # .netrc
    r"\blogin\(\s*(?:(?:key|token)\s*=\s*)?['\"]|"
    r"\bcurl\b[^\n]{0,300}?\s(?:-u|--user)[ =]?['\"]?[^\s:'\"]+:|"
    r"\bdocker\s+login\b[^\n]{0,200}?\s-p\s+|\bHTTPBasicAuth\([^\n,]{1,100},\s{0,4}['\"]?|"
    r"\bsshpass\s+-p\s*)([^\s'\"]+)"
)
_ELEMENT: Final = re.compile(r"<([A-Za-z][\w.-]{0,100})>([^<>]+)(?=</)")

# What a value follows, with the name of the value.
_ASSIGNED: Final = re.compile(
    r"(?:(?<![\w-])(?P<before>[A-Za-z]\w{0,30})[ \t])?"
    r"(?<![A-Za-z0-9])(?P<name>[A-Za-z_](?:[\w.-]{0,100}[\w])?)"
    r"(?:\\*['\"])?\]?[ \t]{0,8}(?:=>|:=|==|=|:(?!:)|%3[Dd]|is[ \t](?=\S*\d|['\"]))"
    r"[ \t]{0,8}"
)
_FLAG: Final = re.compile(r"(?<!\S)(?P<name>--?[A-Za-z][\w.-]{0,100})[ \t]+(?![-\s])")
_SET: Final = re.compile(
    r"(?m)^[ \t]*(?:ENV|ARG|setenv|set)[ \t]+(?P<name>[A-Za-z_]\w{0,100})[ \t]+"
)
_PAIR: Final = re.compile(
    r"(?:\b(?:name|key|variable)\\*['\"]?\s?[=:]\s?|\(\s?|(?=\\*['\"]--?\w))"
    r"\\*['\"](?P<name>[\w.-]{1,100})\\*['\"]\s{0,4},?\s{0,4}"
    r"(?:\\*['\"]?value\\*['\"]?\s?[=:]\s?)?(?=\\*['\"])"
)

# How far a value goes.
_QUOTED: Final = re.compile(
    r"[bBfFrRuU]{0,2}(?P<quote>'''|\"\"\"|\\*['\"])(?P<inside>(?:(?!(?P=quote)).)*)(?P=quote)",
    re.DOTALL,
)
_TAG: Final = re.compile(
    r"<[^<>\s]{0,60}>|\[[A-Za-z_]{1,30}\d*\]|\$\{[^{}]{1,60}\}|\{\{[^{}]{1,60}\}\}"
)
_BARE: Final = re.compile(
    r"(?:(?:Bearer|Basic|Token|Digest|ApiKey|!\w+)[ \t]+)?"
    r"(?:[^\s`'\",;&<>(){}\[\]]|"
    r"[`'\",;&<>(){}\[\]](?=[^\s`'\",;&<>(){}\[\]])(?![\w.-]{1,100}['\"]?\s?[=:]))+"
)
_REST: Final = re.compile(r"[^\n'\"]+")
_FILLS_THE_LINE: Final = re.compile(r"(?i)(?:authorization|cookie|phrase|mnemonic)$")
_LONGEST: Final = 5000  # characters of a value in a text
_LONGEST_DOUBTFUL: Final = 80
_CLOSING: Final = {"(": ")", "[": "]", "{": "}"}


def is_secret(name: str, value: str) -> bool:
    """Return whether a string with this name is a secret."""
    found = verdict(name)
    if found is Verdict.HARMLESS:
        return False
    if found is Verdict.DOUBTFUL:
        return any(map(_looks_random, re.split(r"[^A-Za-z0-9+=]+", value)))
    return not _says_nothing(name, value)


def scrubbed(text: str) -> str:
    """Return `text` without parts that look like secrets."""
    if len(text) < _SHORTEST or (text.isalnum() and len(text) < SHORTEST):
        return text
    for signs, step in _STEPS:
        if any(sign in text for sign in signs):
            text = step(text)
    return RUN.sub(_without_keys, text)


def _says_nothing(name: str, value: str) -> bool:
    """Return whether the value of a secret's name is not the secret itself."""
    if _NOTHING.fullmatch(value) or value in (REDACTED, name):
        return True
    if _SCHEME.fullmatch(value) and re.search(r"(?i)(?:auth|authentication|authorization)$", name):
        return True
    if _MAY_BE_A_NUMBER.search(name) and _NUMBER.fullmatch(value):
        return True
    if re.fullmatch(r"(?i)(?:old)?pwd", name) and _DIRECTORY.fullmatch(value):
        return True  # the shell's working directory
    is_path = _MAY_BE_A_PATH.search(name) and _PATH.fullmatch(value)
    return bool(is_path) and not any(map(_looks_random, re.split(r"[/\\.]", value)))


def _looks_random(text: str) -> bool:
    """Return whether letters and digits are so mixed that nobody chose them to be read."""
    digits = sum(map(str.isdigit, text))
    if len(text) < 16 or digits < 2 or digits == len(text):
        return False
    if re.fullmatch(r"[a-f0-9]{24,}|[A-F0-9]{24,}", text):
        return True
    is_mixed = text != text.lower() and text != text.upper()
    return is_mixed or (len(text) >= 20 and digits >= 4)


def _without_keys(found: re.Match[str]) -> str:
    return KEY.sub(REDACTED, found[0])


def _without_user(found: re.Match[str]) -> str:
    """Return a URL up to its host, without the user unless that only says who logs in."""
    scheme, user = found.groups()
    is_name = ":" not in user and not _looks_random(user)
    if is_name and not scheme.lower().endswith(("http", "https", "ws", "wss")):
        return found[0]
    return f"{scheme}://{REDACTED}@"


def _without_parameter(found: re.Match[str]) -> str:
    """Return a parameter of a URL, without its value if that is a secret."""
    start, name, value = found.groups()
    hidden = is_secret(name, value) or _SIGNATURE.search(name) is not None
    if name.lower() in ("key", "code"):
        hidden = hidden or (len(value) > 8 and not value.isalpha())
    return f"{start}{name}={REDACTED}" if hidden else found[0]


def _without_authorization(found: re.Match[str]) -> str:
    """Return the scheme and the key of a header, without the key if it is one and no word."""
    basic, key = found.groups()
    if basic:
        try:
            hidden = b":" in base64.b64decode(key + "=" * (-len(key) % 4), validate=True)
        except binascii.Error:
            hidden = _looks_random(key)
    else:
        hidden = (len(key) >= 16 and (len(key) >= 32 or not key.isalpha())) or _looks_random(key)
        hidden = hidden and any(map(str.isdigit, key))
    return found[0][: -len(key)] + REDACTED if hidden else found[0]


def _without_content(found: re.Match[str]) -> str:
    """Return an element of XML, without its content if that is a secret."""
    name, content = found.groups()
    return f"<{name}>{REDACTED}" if is_secret(name, content.strip()) else found[0]


def _without_addresses(text: str) -> str:
    return ADDRESS.sub(rf"\g<1>{REDACTED}", text)


def _without_logins(text: str) -> str:
    return _LOGIN.sub(rf"\g<1>{REDACTED}", text)


def _without_values(pattern: re.Pattern[str], text: str) -> str:
    """Return `text` without the secrets among the values that follow what `pattern` finds."""
    parts, kept, position = [], 0, 0
    while found := pattern.search(text, position):
        position = found.end()
        name = found["name"]
        before = found.groupdict().get("before")
        phrase = f"{before} {name}" if before else name
        found_to_be = verdict(phrase)
        if found_to_be is Verdict.HARMLESS:
            continue
        limit = _LONGEST if found_to_be is Verdict.SECRET else _LONGEST_DOUBTFUL
        start, end = _extent(text, position, position + limit, phrase)
        if start < end and is_secret(phrase, text[start:end]):
            parts += [text[kept:start], REDACTED]
            kept = position = end
    return "".join([*parts, text[kept:]])


def _extent(text: str, position: int, limit: int, name: str) -> tuple[int, int]:
    """Return where the value that begins at `position` starts and ends, without its quotes.

    It ends at `limit` at the latest, so that the time is linear.
    """
    if quoted := _QUOTED.match(text, position, limit):
        return quoted.span("inside")
    if tag := _TAG.match(text, position):
        return tag.span()
    if text[position : position + 1] in _CLOSING and verdict(name) is Verdict.SECRET:
        return position, _closed_at(text, position, min(limit, len(text)))
    pattern = _REST if _FILLS_THE_LINE.search(name) else _BARE
    value = pattern.match(text, position, limit)
    return (position, position) if value is None else value.span()


def _closed_at(text: str, position: int, limit: int) -> int:
    """Return the end of what is in brackets that open at `position`, `limit` at the latest."""
    waiting: list[str] = []
    for index in range(position, limit):
        if text[index] in _CLOSING:
            waiting.append(_CLOSING[text[index]])
        elif waiting and text[index] == waiting[-1]:
            waiting.pop()
            if not waiting:
                return index + 1
    return limit


_STEPS: Final[tuple[tuple[tuple[str, ...], Callable[[str], str]], ...]] = (
    (("PRIVATE KEY", "PuTTY-User-Key"), partial(PRIVATE_KEY.sub, REDACTED)),
    (("://",), partial(_USER_INFO.sub, _without_user)),
    (("@",), partial(_PROXY.sub, f"{REDACTED}@")),
    (("/",), _without_addresses),
    (("=",), partial(_QUERY.sub, _without_parameter)),
    ((" ",), partial(_SCHEME_AND_KEY.sub, _without_authorization)),
    (("login", "curl", "sshpass", "HTTPBasicAuth("), _without_logins),
    (("</",), partial(_ELEMENT.sub, _without_content)),
    (("=", ":", "%3", " is "), partial(_without_values, _ASSIGNED)),
    (("-",), partial(_without_values, _FLAG)),
    (("ENV", "ARG", "set"), partial(_without_values, _SET)),
    (("'", '"'), partial(_without_values, _PAIR)),
)
"""What is removed from a text, each after the signs without which it cannot be there."""
