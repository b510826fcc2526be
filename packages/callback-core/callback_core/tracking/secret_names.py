"""Tells by its name whether a value is a secret: `wandb_key` is one, and `sort_key` is not."""

from __future__ import annotations

import enum
import re
import unicodedata
from functools import lru_cache
from typing import Final


class Verdict(enum.Enum):
    """What a name says about its value."""

    SECRET = "secret"
    DOUBTFUL = "doubtful"
    """A secret if it looks random: `foo_key`."""
    HARMLESS = "harmless"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PASSWORDS: Final = _words(
    "accesskey accesstoken apikey authkey authtoken contrasena credential kennwort mnemonic "
    "passcode passkey passphrase passwd password passwort passwrd paswd pincode privatekey psswd "
    "pswd pwd secret secretkey"
)
_ENDS_IN_PASSWORD: Final = re.compile(rf"(?:{'|'.join(sorted(_PASSWORDS))})(?:s|hash|value)?$")
_LAST: Final = _words("bearer cred creds jwt otp psw pw senha totp cookie cookies")
_PHRASES: Final = re.compile(
    r"\b(?:(?:access|account|api|auth|encryption|decryption|private|secret|signing|ssh) keys?|"
    r"(?:access|api|auth|bearer|refresh|secret|security) tokens?|"
    r"pass ?(?:word|phrase|code|key|wd)s?|"
    r"(?:access|auth|authorization|backup|mfa|pin|recovery|security|verification) codes?|"
    r"(?:recovery|seed|backup) phrase|auth (?:basic|bearer|cookie|data|pair|string)|"
    r"shared access signature)\b"
)
_WHOLE: Final = re.compile(
    r"\b(?:web ?hooks?(?: (?:address|endpoint|link|ur[il])s?)?|(?:auth|authorization) headers?)$"
)
# A name that ends with such a word tells something about a secret: `password_file`, `token_type`.
_ABOUT: Final = _words(
    "age algorithm alias arn at attempts audience available backend bytes callback category "
    "changed characters chars charset checker claims class cls column columns complexity config "
    "configured count created dataset date description detected detection detector dir directory "
    "disabled domain enabled encoding endpoint env environ envvar error exists expiration expires "
    "expiry field fields file filename files fingerprint fn folder format found func function "
    "group handler hasher header headers help hint host id ids index info interval invalid is "
    "issuer kind label leaked leaks len length lengths level limit location lookup manager mask "
    "masked max message method min missing mode module mount name names num number ok optional "
    "options owner param parameter path paths pattern permissions placeholder policies policy "
    "position prefix present prompt protocol provider ref reference references regex required "
    "requirements reset rotation rule rules salt santa scan scanner scanning scheme scope scopes "
    "score service set setting settings sharing size source status storage store strategy strength "
    "style suffix task team template time timeout timestamp title ttl type types uri url usage use "
    "user username users uuid valid validation validator var variable variables vault version "
    "visible"
)
# What may follow the word that makes it a secret: `token_prod`, `wandb_key_2`.
_EDITIONS: Final = _words(
    "admin b64 backup base base64 current default dev development encoded encrypted external "
    "fallback global here internal live local main new old org personal plain plaintext primary "
    "private prod production qa raw read readonly readwrite remote ro rw sandbox secondary shared "
    "stage staging test v val value values write"
)
_SERVICES: Final = _words(
    "airtable algolia alibaba aliyun anthropic anyscale artifactory assemblyai atlassian aws azure "
    "baidu baseten bing bitbucket cerebras circleci claude clearml cloudflare codecov cohere comet "
    "coreweave dagshub dashscope databricks datadog dd deepgram deepinfra deepseek digitalocean "
    "discord docker dockerhub dropbox elastic elasticsearch elevenlabs exa figma firebase "
    "firecrawl fireworks flyte gcloud gcp gcs gemini gh ghcr gitea github gitlab gl google gpt "
    "grafana grok groq heroku hf hub huggingface hyperbolic jfrog jina jira kaggle labelbox "
    "lambdalabs langchain langfuse langsmith linear linode llm mailgun mapbox minimax minio "
    "mistral mlflow mongo mongodb moonshot mysql nebius neptune newrelic ngc ngrok notion npm "
    "nvapi nvidia oai okta ollama openai openrouter openweather pagerduty paperspace perplexity "
    "pinecone postgres postgresql pypi qdrant quay rabbitmq redis replicate roboflow runpod "
    "sagemaker sambanova sendgrid sentry serp serpapi serper slack snowflake snyk splunk stripe "
    "supabase swanlab tavily telegram tencent together togetherai twilio twitter vast vastai "
    "vercel vllm volcengine voyage vultr wandb watsonx weaviate xai yandex zenml zhipu"
)
_OF_KEYS: Final = _SERVICES | _words(
    "access account activation admin aes api app application auth bedrock bigquery bot ci cipher "
    "client cloud consumer crypto database db decryption deploy deployment developer enc "
    "encryption endpoint gpg grader hmac ingest ingestion instrumentation integration judge jwt "
    "licence license login master my oauth openssh org pgp private registration root rsa secret "
    "server service shared signing ssh ssl storage subscription tls vertex webhook write"
)
_NO_KEYS: Final = _words(
    "archive arg array attention attn attr attribute batch blob bucket cache cached category "
    "checkpoint class column commit composite config context data dataset dict dictionary "
    "embedding encoder etag event example feature field file filter fingerprint foreign function "
    "gradient graph group hash header hidden hot id image index input instance item join json "
    "label layer logits lookup loss map mapping mask message meta metadata metric model module "
    "monitor name node object option order out output pad padding param parameter partition past "
    "path position prediction preference primary prng product prompt property public query "
    "question record registry response result rng row sample sampling search seed self sha shard "
    "sort split state step store sub table tag target task tensor text trial tuple type unique "
    "user value version video vocab weight weights"
)
_NO_SECRET_TOKENS: Final = _words(
    "action added additional after all answer any assistant audio average avg background base "
    "before begin beginning blank block bod boi bold bop bos boundary box byte char character "
    "choice chunk class cloze cls code concept content context control count current decoder delim "
    "delimiter detection distill distillation document domain draft dummy duplicate each empty "
    "encoder end endoftext entity eod eof eoh eoi eol eom eop eor eos eot every extra fake fill "
    "fim final first forced frame generated global ignore image img in infill init initial "
    "initializer inner input instance instruction itn lang language last latent learnable line "
    "loss ls mask masked max mean media memory merge middle min mm modality multi multimodal n new "
    "newline next no non nospeech notimestamps num object observation oov out output pad padding "
    "parent pass patch per phoneme placeholder point position pre predicted prefix prev previous "
    "prompt punctuation quad query question rank rare reasoning ref region register relation "
    "response reward role root sample scene segment sentence sep separator sequence single soft "
    "sot source space speaker special speculative speech src start state step stop style sub "
    "suffix summary suppress symbol target task teacher text tgt think thinking thought tik time "
    "timestamp tool total trained training transcribe translate translation trigger turn unk "
    "unknown unused valid verb video virtual vision visual vocab wildcard word yes"
)
_OF_TOKENS: Final = _SERVICES | _words(
    "account admin api app auth bot ci client cloud csrf deploy git http id jwt login oauth "
    "personal pull push registry server service session upload xsrf"
)
_NO_PASS: Final = _words(
    "all analysis any back backward band block by cleanup compiler current dataset decode each "
    "encode epoch eval evaluation every fail final first forward full fusion graph high inductor "
    "inference is last low lowering max min multi n new next no num number of one optimization "
    "optimizer or other out per post pre prefill previous prune quantization render rewrite second "
    "separate sequence single source step test third train training transform two val validation "
    "whole"
)
_OF_PASS: Final = _words(
    "admin auth basic client cred database db docker email ftp http hub jdbc key keystore ldap "
    "login mail mlflow mongo my mysql pg postgres proxy rabbit redis registry root sa server "
    "service smtp sql ssh store sudo svc u user usr vault wandb wifi"
)
_AUTH: Final = _words("auth authentication authn authorization oauth")
_OF_AUTH: Final = _words("basic docker hub http https npm pip proxy registry x")

_PASS_AT: Final = re.compile(r"(?i)(?<![A-Za-z])pass[@^](?:\d+|k)(?![A-Za-z])")
"""A metric of generated code: `pass@1`."""

_CAMEL: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_PLAIN: Final = re.compile(r"[a-z]+|\d+")


@lru_cache(maxsize=8192)
def verdict(name: str) -> Verdict:
    """Return what `name` says about its value, whichever way its words are joined.

    `hub_token`, `hubToken`, `HUB-TOKEN` and `model.hubtoken` are one name.
    """
    name = _PASS_AT.sub("", name)
    if not name.isascii():
        name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    found = _of_words([word.lower() for word in _CAMEL.findall(name)])
    if found is not Verdict.SECRET:  # APIkey and PASSword are no words in camel case
        words = _PLAIN.findall(name.lower())
        if any(map(_ENDS_IN_PASSWORD.search, words)):
            return _of_words(words)
    return found


def _of_words(words: list[str]) -> Verdict:
    """Return the verdict on the words of a name, in lower case."""
    words = [part for word in words if not word.isdigit() for part in _parts(word)]
    if not words:
        return Verdict.HARMLESS
    if _WHOLE.search(" ".join(words)):
        return Verdict.SECRET
    while len(words) > 1 and words[-1] in _EDITIONS:
        words.pop()
    last = words[-1]
    if any(map(_ENDS_IN_PASSWORD.search, words)) or _PHRASES.search(" ".join(words)):
        if last in ("id", "header", "headers", "config", "info") and last != words[0]:
            return Verdict.DOUBTFUL
        return Verdict.HARMLESS if last in _ABOUT else Verdict.SECRET
    return _of_the_last(last, words[:-1])


def _of_the_last(last: str, before: list[str]) -> Verdict:
    """Return the verdict on a name that is a secret, if at all, because of its last word."""
    near = before[-1] if before else ""
    if last in ("key", "keys"):
        if near in _NO_KEYS:
            return Verdict.HARMLESS
        return Verdict.DOUBTFUL if _OF_KEYS.isdisjoint(before) else Verdict.SECRET
    if last == "token":
        harmless = not _NO_SECRET_TOKENS.isdisjoint(before) and near not in _OF_TOKENS
        return Verdict.DOUBTFUL if harmless else Verdict.SECRET
    if last == "tokens" and near not in _NO_SECRET_TOKENS:
        return Verdict.DOUBTFUL if _OF_TOKENS.isdisjoint(before) else Verdict.SECRET
    if last == "tokens":
        return Verdict.DOUBTFUL
    if last == "pass":
        return Verdict.HARMLESS if near in _NO_PASS else Verdict.SECRET
    if last == "pat":
        personal = not (_SERVICES | {"access", "git", "personal"}).isdisjoint(before)
        return Verdict.SECRET if personal else Verdict.DOUBTFUL
    return Verdict.SECRET if last in _AUTH or last in _LAST else Verdict.HARMLESS


def _parts(word: str) -> tuple[str, ...]:
    """Return the two words that were written as one, such as `hftoken`, or `word` alone."""
    for end in ("tokens", "token"):
        if word.endswith(end) and word != end:
            return word[: -len(end)], end
    for end, known in (("keys", _OF_KEYS), ("key", _OF_KEYS), ("auth", _OF_AUTH)):
        if word.endswith(end) and word[: -len(end)] in known:
            return word[: -len(end)], end
    for end, meaning in (("pass", "pass"), ("pw", "pwd"), ("pat", "pat")):
        if word.endswith(end) and word[: -len(end)] in _OF_PASS | _SERVICES:
            return word[: -len(end)], meaning
    return (word,)


def describes_secrets(name: str) -> bool:
    """Return whether a value with this name tells something about a secret: `key_file`, `type`."""
    words = _PLAIN.findall(name.lower())
    return bool(words) and words[-1] in _ABOUT
