"""Who is calling: API keys as Bearer tokens, and browser sessions as a signed cookie.

A key's secret is kept as HMAC-SHA256 under ``settings.secret_key``; a stolen database signs nobody in. The
session cookie names a key, so revoking the key ends its sessions too.
"""

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response, Security
from fastapi.responses import RedirectResponse
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from itsdangerous import BadSignature, URLSafeTimedSerializer
from sqlalchemy.orm import Session

from app.core.errors import Forbidden, RateLimited, Unauthenticated
from app.core.settings import Settings
from app.core.unit import Services, get_services
from app.keys import repository as keys
from app.keys.limits import Limits, limits_of
from app.keys.tables import ApiKey

Scope = Literal["read", "write", "admin"]
ALL_SCOPES: Final[tuple[Scope, ...]] = ("read", "write", "admin")
COOKIE: Final = "basisconv_session"
SESSION_SECONDS: Final = 30 * 86_400
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_TOUCH_AFTER: Final = timedelta(minutes=1)  # `last_used_at` need not cost a write per request

_bearer = HTTPBearer(auto_error=False, description="An API key: `Authorization: Bearer bc_…`.")
_cookie = APIKeyCookie(name=COOKIE, auto_error=False, description="A browser's session; same site only.")


@dataclass(frozen=True)
class Caller:
    """Who is calling and what they may do."""

    key_id: str
    owner_id: str
    scopes: frozenset[str]
    limits: Limits
    by_session: bool  # signed in by cookie, so requests of other sites must be refused

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes


def new_secret() -> str:
    """A key's secret: 256 random bits behind a prefix that secret scanners can look for."""
    return "bc_" + secrets.token_urlsafe(32)


def digest_of(settings: Settings, secret: str) -> str:
    """What the database keeps of a secret."""
    pepper = settings.secret_key.get_secret_value().encode()
    return hmac.new(pepper, secret.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()


def caller_of(key: ApiKey, settings: Settings, now: datetime, *, by_session: bool) -> Caller:
    """The caller a key stands for; raises if the key was revoked or has expired."""
    if key.revoked_at is not None:
        raise _unauthenticated("This API key was revoked.")
    if key.expires_at is not None and key.expires_at <= now:
        raise _unauthenticated(f"This API key expired at {key.expires_at.isoformat()}.")
    granted = frozenset(key.scopes) if key.scopes else frozenset(ALL_SCOPES) - {"admin"}
    return Caller(key.id, key.owner_id, granted, limits_of(key, settings), by_session)


def _unauthenticated(detail: str) -> Unauthenticated:
    return Unauthenticated(
        detail,
        hint="Send `Authorization: Bearer <key>`, or open the sign-in link.",
        headers={"WWW-Authenticate": 'Bearer realm="basisconv"'},
    )


def current_owner(request: Request) -> Caller:
    """FastAPI dependency: the caller, by key or by session; raises Unauthenticated, Forbidden or RateLimited.

    Uses a short session of its own, so that no connection is held while the request waits for a thread.
    """
    services = get_services(request)
    caller = _recent(request, services)
    if caller is None:
        with services.single_statements() as session:
            caller = _identify(request, services, session)
    request.state.key_id = caller.key_id  # for the log's line
    if caller.by_session:
        refuse_cross_site(request)
    _count(request, services, caller)
    return caller


def _count(request: Request, services: Services, caller: Caller) -> None:
    """Take one request from the key's allowance; the edge tells what is left."""
    limit = caller.limits.requests_per_minute
    if not limit:
        return
    allowance = request.state.allowance = services.meter.take(caller.key_id, limit)
    if not allowance.allowed:
        seconds = allowance.retry_seconds
        raise RateLimited(
            f"This key may ask {limit:,} times a minute, and has done so.",
            hint=f"Go on in {seconds} s, and then more slowly.",
            headers={"Retry-After": str(seconds)},
            limit=limit,
        )


def _recent(request: Request, services: Services) -> Caller | None:
    """The caller by a key that was read within the last second; whether it has expired is judged anew."""
    secret, now = _bearer_secret(request), services.clock.now()
    key = None if secret is None else services.recent_keys.get(digest_of(services.settings, secret), now)
    return None if key is None else caller_of(key, services.settings, now, by_session=False)


def _bearer_secret(request: Request) -> str | None:
    """What an Authorization header holds; None without one."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, secret = header.partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise _unauthenticated("The Authorization header is not of the form `Bearer <key>`.")
    return secret.strip()


def _identify(request: Request, services: Services, session: Session) -> Caller:
    now = services.clock.now()
    secret = _bearer_secret(request)
    if secret is not None:
        digest = digest_of(services.settings, secret)
        key = keys.by_digest(session, digest)
        if key is not None:
            services.recent_keys.put(digest, key, now)
        refusal, by_session = "This API key is not known.", False
    else:
        key_id = read_session(services.settings, request.cookies.get(COOKIE))
        key = keys.by_id(session, key_id) if key_id is not None else None
        refusal, by_session = "No API key was sent.", True
    if key is None:
        raise _unauthenticated(refusal)
    caller = caller_of(key, services.settings, now, by_session=by_session)
    if key.last_used_at is None or key.last_used_at < now - _TOUCH_AFTER:
        keys.touch(session, key.id, now)
    return caller


def refuse_cross_site(request: Request) -> None:
    """A cookie is sent by the browser, whoever made it do so: only our own pages may make it act.

    Same rule as Go's ``http.CrossOriginProtection``: Sec-Fetch-Site where the browser sends it, else Origin
    against Host; clients that send neither are no browsers.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        if site in {"same-origin", "none"} or _follows_link(request):
            return
    else:
        origin = request.headers.get("origin")
        public_url = get_services(request).settings.public_url
        if origin is None or _is_ours(origin, request.headers.get("host"), public_url):
            return
    raise Forbidden(
        "A request from another site cannot use the browser's session.",
        hint="Send an API key in the Authorization header.",
    )


def _follows_link(request: Request) -> bool:
    """Somebody followed a link to one of our pages: that shows the page and does nothing."""
    return (
        request.method in _SAFE_METHODS
        and request.headers.get("sec-fetch-mode") == "navigate"
        and request.headers.get("sec-fetch-dest", "document") == "document"
        and not request.url.path.startswith("/v1/")
    )


def _is_ours(origin: str, host: str | None, public_url: str) -> bool:
    """A page of this service, by the Host that was asked or, behind a proxy that rewrites it, by URL."""
    return urlsplit(origin).netloc == host or origin == "{0.scheme}://{0.netloc}".format(urlsplit(public_url))


@cache
def require(scope: Scope) -> Callable[..., Awaitable[Caller]]:
    """FastAPI dependency: the caller, who must hold this scope. Every route declares one, or `OPEN`."""

    async def with_scope(
        caller: Annotated[Caller, Depends(current_owner)],
        _header: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer, scopes=[scope])] = None,
        _session: Annotated[str | None, Security(_cookie, scopes=[scope])] = None,
    ) -> Caller:
        return holding(caller, scope)

    return with_scope


def holding(caller: Caller, scope: Scope) -> Caller:
    """The caller, if they hold this scope; else Forbidden."""
    if not caller.may(scope):
        held = ", ".join(sorted(caller.scopes)) or "none"
        raise Forbidden(f"This needs the scope `{scope}`; the key has {held}.")
    return caller


def scraper(
    request: Request,
    _header: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer, scopes=["read"])] = None,
    _session: Annotated[str | None, Security(_cookie, scopes=["read"])] = None,
) -> None:
    """Dependency of the metrics: a key that may read, or the token of the setting, without a database:
    figures are wanted most when that is away."""
    token = get_services(request).settings.metrics_token
    given = request.headers.get("authorization", "").encode("utf-8", "surrogateescape")
    if token is None or not hmac.compare_digest(f"Bearer {token.get_secret_value()}".encode(), given):
        holding(current_owner(request), "read")


async def _open() -> None:
    """Asks nothing of the caller."""


OPEN: Final = Depends(_open)  # for routes that show nothing of anybody: health, signing in, descriptions
# What a route declares by its dependency; app/api/access.py reads it, and a test wants one on every route.
DECLARATIONS: Final[Mapping[Any, Scope | None]] = {
    _open: None,
    scraper: "read",
    **{require(scope): scope for scope in ALL_SCOPES},
}
Reader = Annotated[Caller, Depends(require("read"))]
Writer = Annotated[Caller, Depends(require("write"))]
Admin = Annotated[Caller, Depends(require("admin"))]


def _signer(settings: Settings) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(settings.secret_key.get_secret_value(), salt="basisconv.session.v1")


def start_session(response: Response, settings: Settings, key_id: str) -> None:
    """Set the signed cookie that stands for this key."""
    response.set_cookie(
        COOKIE,
        _signer(settings).dumps(key_id),
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="lax",  # the sign-in link may be clicked in another page
        secure=settings.is_https(),
        path="/",
    )


def end_session(response: Response) -> None:
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")


def read_session(settings: Settings, cookie: str | None) -> str | None:
    """The key id in a cookie that we signed within the last 30 days."""
    if not cookie:
        return None
    try:
        key_id = _signer(settings).loads(cookie, max_age=SESSION_SECONDS)
    except BadSignature:
        return None
    return key_id if isinstance(key_id, str) else None


def sign_in_by_token(services: Services, token: str) -> Response:
    """Answer of ``/?token=…``: the owner's session and a redirect that takes the token out of the address."""
    expected = services.settings.sign_in_token
    if expected is None or not hmac.compare_digest(expected.get_secret_value().encode(), token.encode()):
        raise _unauthenticated("This sign-in link is not valid; it ends with the run that printed it.")
    with services.sessions() as session:
        key = keys.oldest_admin(session, services.clock.now())
    if key is None:
        raise _unauthenticated("There is no owner key to sign in with.")
    response = RedirectResponse("/", status_code=303)
    start_session(response, services.settings, key.id)
    return response


def sign_in_by_key(services: Services, secret: str) -> Response:
    """Answer of a sign-in form: the session of the pasted key and a redirect to the start page."""
    with services.sessions() as session:
        key = keys.by_digest(session, digest_of(services.settings, secret))
    if key is None:
        raise _unauthenticated("This API key is not known.")
    caller = caller_of(key, services.settings, services.clock.now(), by_session=True)
    response = RedirectResponse("/", status_code=303)
    start_session(response, services.settings, caller.key_id)
    return response
