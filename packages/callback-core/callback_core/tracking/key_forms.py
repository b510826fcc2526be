"""The forms of keys that services issue, by which a key is recognized under any name.

The prefixes and alphabets are those of the rules of gitleaks
(https://github.com/gitleaks/gitleaks, `config/gitleaks.toml`) and of the plugins of detect-secrets
(https://github.com/Yelp/detect-secrets), and of the services' own documentation for those that both
lack. Lengths are lower bounds, because services change them.
"""

from __future__ import annotations

import re
from typing import Final

_KEYS: Final = (
    # models and their hubs
    r"(?:hf|api_org)_[A-Za-z0-9]{20,}",  # Hugging Face
    r"sk-(?:proj|svcacct|admin|service|None|ant|or|lf)-[\w-]{16,}",  # OpenAI, Anthropic, and others
    r"sk-[A-Za-z0-9_]{20,}",  # OpenAI, DeepSeek, Moonshot, LiteLLM
    r"(?:csk|psk)-[A-Za-z0-9]{20,}",  # Cerebras
    r"AIza[\w-]{20,}",  # Google
    r"AQ\.Ab[\w-]{20,}",  # Google
    r"ya29\.[\w-]{20,}",  # Google
    r"1//0[\w-]{20,}",  # Google
    r"GOCSPX-[\w-]{20,}",  # Google
    r"(?:gsk|r8|rpa|rps|pcsk|fw|jina|tgp_v1|esecret|bfl|lsv2_pt|lsv2_sk|ls_)_[A-Za-z0-9_]{20,}",
    r"(?:nvapi|tvly|pplx|xai|fc|lin_api|nst)-[\w-]{20,}",  # NVIDIA, Tavily, Perplexity, xAI
    r"pa-[A-Za-z0-9_-]{40,}",  # Voyage
    r"a[ks]-(?=[A-Za-z]*\d)[A-Za-z0-9]{20,}",  # Modal
    r"KGAT_[a-f0-9]{20,}",  # Kaggle
    r"wandb_v\d+_[\w-]{10,}",  # Weights & Biases
    r"eyJhcGlf[\w+/=-]{20,}",  # Neptune: {"api_…
    r"dapi[a-f0-9]{32}(?:-\d)?",  # Databricks
    r"pn[ub]_[A-Za-z0-9]{30,}",  # Prefect
    # code and packages
    r"github_pat_\w{20,}",
    r"gh[pousr]_[A-Za-z0-9_]{30,}",
    r"gl(?:pat|ptt|dt|rt|rtr|cbt|ft|imt|agent|oas|soat|ffct|wt)-[\w.-]{20,}",  # GitLab
    r"GR1348941[\w-]{20}",  # GitLab
    r"AT[AC]TT3[\w=-]{20,}",  # Atlassian
    r"ATBB[A-Za-z0-9]{28,}",  # Bitbucket
    r"(?:npm|rubygems|figd|vcp|nfp|sbp|napi|pat|tfp|rdme|ntn|dckr_pat|dckr_oat|nuget|apify_api)_"
    r"(?=\w*\d)[A-Za-z0-9-]{20,}",
    r"npm_[A-Za-z0-9]{30,}",
    r"pypi-Ag[\w-]{16,}",
    r"pypi-[A-Za-z0-9_]{32,}",
    r"oy2[a-z0-9]{43}",  # NuGet
    r"cio[A-Za-z0-9]{32}",  # crates.io
    r"AKCp[A-Za-z0-9]{69,}",  # Artifactory
    r"cmVmd[A-Za-z0-9]{50,}",  # Artifactory
    r"sq[upa]_[a-z0-9]{40}",  # SonarQube
    r"sgp_(?:[a-fA-F0-9]{16}_|local_)?[a-fA-F0-9]{40}",  # Sourcegraph
    r"CLOJARS_[a-z0-9]{60}",
    r"CCIPAT_\w{20,}",  # CircleCI
    r"bkua_[a-f0-9]{40}",  # Buildkite
    r"snyk_\w{20,}",
    # clouds and databases
    r"(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA|AGPA|AROA)[A-Z0-9]{16}",  # AWS
    r"ABSK[A-Za-z0-9+/]{60,}={0,2}",  # AWS Bedrock
    r"bedrock-api-key-[A-Za-z0-9+/=]{20,}",
    r"[\w~.]{3}\dQ~[\w~.-]{31,34}",  # Azure
    r"LTAI[A-Za-z0-9]{12,}",  # Alibaba
    r"AKID[A-Za-z0-9]{32}",  # Tencent
    r"bce-v3/ALTAK-[\w/-]{20,}",  # Baidu
    r"AQVN[\w-]{35,}",  # Yandex
    r"t1\.[\w-]+={0,2}\.[\w-]{80,}={0,2}",  # Yandex
    r"do[opr]_v1_[a-f0-9]{40,}",  # DigitalOcean
    r"HRKU-[\w-]{36,}",  # Heroku
    r"f(?:o1|m1[ar]|m2)_[\w+/-]{40,}={0,3}",  # Fly.io
    r"v1\.0-[a-f0-9]{24}-[a-f0-9]{100,}",  # Cloudflare
    r"cf[au]t_[\w-]{40,}",  # Cloudflare
    r"pscale_(?:tkn|oauth|pw)_[\w=.-]{20,}",  # PlanetScale
    r"sb_secret_[\w-]{20,}",  # Supabase
    r"4b1d[A-Za-z0-9]{38}",  # ClickHouse
    r"hv[sbr]\.[\w-]{20,}",  # Vault
    r"[A-Za-z0-9]{14}\.atlasv1\.[\w=-]{40,}",  # Terraform
    r"pul-[a-f0-9]{40}",  # Pulumi
    r"ico-[A-Za-z0-9]{32}",  # Infracost
    r"dp\.(?:pt|st|ct|sa|scim|audit)\.(?:[\w-]+\.)?[A-Za-z0-9]{40,}",  # Doppler
    r"sha256~[\w-]{43}",  # OpenShift
    r"tskey-[\w-]{16,}",  # Tailscale
    r"ops_eyJ[A-Za-z0-9+/=_-]{20,}",  # 1Password
    r"A3-[A-Z0-9]{6}-[A-Z0-9]{6}-?[A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{5}",  # 1Password
    r"AGE-SECRET-KEY-1[A-Z0-9]{40,}",
    r"API-[A-Z0-9]{25,}",  # Octopus Deploy
    r"(?:pat|sat)\.[\w-]{22}\.[A-Za-z0-9]{24}\.[A-Za-z0-9]{20}",  # Harness
    # messages
    r"xox[abceoprsd]-[\w%-]{10,}",  # Slack
    r"xoxe\.xox[bp]-[\w-]{10,}",  # Slack
    r"xapp-\d-[\w-]{10,}",  # Slack
    r"[MNO][\w-]{22,26}\.[\w-]{6,7}\.[\w-]{27,}",  # Discord
    r"\d{8,10}:AA[\w-]{32,}",  # Telegram
    r"SG\.[\w-]{16,}\.[\w-]{16,}",  # SendGrid
    r"SK[0-9a-f]{32}",  # Twilio
    r"key-[0-9a-f]{32}",  # Mailgun
    r"[0-9a-f]{32}-us\d{1,2}",  # Mailchimp
    r"xkeysib-[a-f0-9]{64}-[A-Za-z0-9]{16}",  # Brevo
    # monitoring and the rest
    r"gl(?:c|sa)_[A-Za-z0-9+/_]{30,}={0,3}",  # Grafana
    r"eyJrIjoi[A-Za-z0-9]{40,}={0,3}",  # Grafana
    r"NR(?:AK|II|JS)-[A-Za-z0-9-]{19,}",  # New Relic
    r"phx_[A-Za-z0-9]{32,}",  # PostHog
    r"sntry[su]_[\w+/=-]{40,}",  # Sentry
    r"dt0[cs]\d\d\.[A-Z0-9]{24}\.[A-Z0-9]{64}",  # Dynatrace
    r"PMAK-[a-f0-9]{24}-[a-f0-9]{34}",  # Postman
    r"(?:sk|rk)_(?:test|live|prod)_[A-Za-z0-9]{10,}",  # Stripe
    r"sk_[a-f0-9]{40,}",  # ElevenLabs
    r"whsec_[A-Za-z0-9+/=]{20,}",  # Stripe
    r"rzp_(?:test|live)_[A-Za-z0-9]{14,}",  # Razorpay
    r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",  # Shopify
    r"shippo_(?:live|test)_[a-fA-F0-9]{40}",
    r"sq0(?:atp|csp)-[\w-]{22,}",  # Square
    r"EAA[A-Za-z0-9]{60,}",  # Facebook, Square
    r"A{20}[A-Za-z0-9%]{60,}",  # Twitter
    r"secret_(?=[A-Za-z]*\d)[A-Za-z0-9]{40,}",  # Notion
    r"lin_(?:api|oauth)_[A-Za-z0-9]{20,}",  # Linear
    r"pat[A-Za-z0-9]{14}\.[a-f0-9]{64}",  # Airtable
    r"pat-(?:na|eu)\d-[a-f0-9-]{36}",  # HubSpot
    r"CFPAT-[\w-]{40,}",  # Contentful
    r"sk\.eyJ[\w-]{20,}\.[\w-]{20,}",  # Mapbox
    r"E[ZT][AT]K[A-Za-z0-9]{54}",  # EasyPost
    r"duffel_(?:test|live)_[\w=-]{43}",
    r"fio-u-[\w=-]{64}",  # Frame.io
    r"FLWSECK(?:_TEST)?-[a-h0-9]{12,}(?:-X)?",  # Flutterwave
    r"[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk",  # MaxMind
    r"perm[:-][\w=]{8,}\.[\w=]{4,}\.\w{8,}",  # JetBrains
    r"p8e-[A-Za-z0-9]{32}",  # Adobe
    # a JSON Web Token
    r"(?<![\w-])(?:\w{1,30}[_-])?eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*(?:\.[\w-]+){0,2}",
)

KEY: Final = re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(_KEYS)})(?![A-Za-z0-9])")
"""A key of a known form."""

SHORTEST: Final = 14
"""The fewest characters of a key."""

RUN: Final = re.compile(rf"[\w~+/=.:%-]{{{SHORTEST},}}")
"""Where a key can be at all: a run of its characters that is long enough."""

ADDRESS: Final = re.compile(
    r"(?i)("
    r"hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/|"
    r"discord(?:app)?\.com/api/(?:v\d+/)?webhooks/|"
    r"[\w.-]+\.webhook\.office\.com/webhookb?2?/|outlook\.office(?:365)?\.com/webhook/|"
    r"api\.telegram\.org/(?:file/)?bot|"
    r"open\.(?:feishu\.cn|larksuite\.com)/open-apis/bot/(?:v2/)?hook/|"
    r"hooks\.zapier\.com/hooks/catch/|maker\.ifttt\.com/trigger/[\w-]+/(?:json/)?with/key/|"
    r"hook\.(?:[a-z0-9]+\.)?(?:make|integromat)\.com/|"
    r"hc-ping\.com/|events\.pagerduty\.com/integration/"
    r")[^\s'\"<>?#\\),;\]}]+"
)
"""The address of a webhook, whose path is its key; the group has what may be shown."""

PRIVATE_KEY: Final = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r".*?(?:-----END [A-Z0-9 ]{0,40}KEY(?: BLOCK)?-----|\Z)|"
    r"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----.*?(?:---- END [A-Z0-9 ]{0,40}KEY ----|\Z)|"
    r"PuTTY-User-Key-File-\d+:.*?(?:Private-MAC:[^\n]*|\Z)",
    re.DOTALL,
)
"""A private key in PEM, of PGP, OpenSSH or PuTTY; up to the end of the text if it is cut off."""
