"""The one tree of errors. A class knows its HTTP status, its OpenAI type and code, and whether a retry helps.

The docstring of a class is its default message, cure included. Knows nothing of HTTP beyond the number.
"""

from __future__ import annotations


class HeadgateError(Exception):
    """Something went wrong inside Headgate. The log of the process has the details; the request id finds them."""

    status: int = 500
    kind: str = "server_error"
    code: str = "internal_error"
    retryable: bool = False

    def __init__(
        self,
        message: str | None = None,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        code: str | None = None,
    ) -> None:
        """Keep the message (class docstring by default), the offending field and when a retry may help (seconds)."""
        self.message = message or " ".join((type(self).__doc__ or "").split())
        self.param = param
        self.retry_after_s = retry_after_s
        if code is not None:
            self.code = code
        super().__init__(self.message)


class BadRequest(HeadgateError):
    """The request is not valid. The message names the field and the cure."""

    status, kind, code = 400, "invalid_request_error", "invalid_request"


class ContextOverflow(BadRequest):
    """The prompt and the requested output do not fit the model's context. Shorten the messages or lower max_tokens."""

    code = "context_length_exceeded"


class Unauthorized(HeadgateError):
    """No valid API key was given. Send 'Authorization: Bearer <key>'; `headgate key create` makes one."""

    status, kind, code = 401, "authentication_error", "invalid_api_key"


class Forbidden(HeadgateError):
    """This key may not do that. Ask an administrator for a key with the needed role."""

    status, kind, code = 403, "permission_error", "forbidden"


class NotFound(HeadgateError):
    """There is nothing under that name. `GET /v1/models` lists what is served."""

    status, kind, code = 404, "invalid_request_error", "not_found"


class ModelNotFound(NotFound):
    """No pipeline of that name is served here. `GET /v1/models` lists those that are."""

    code = "model_not_found"


class MethodNotAllowed(HeadgateError):
    """This path does not take that method. The Allow header names those that it takes."""

    status, kind, code = 405, "invalid_request_error", "method_not_allowed"

    def __init__(self, message: str | None = None, *, allow: str = "") -> None:
        """As above; `allow` are the methods that the path takes, as the Allow header names them."""
        super().__init__(message)
        self.allow = allow


class PayloadTooLarge(HeadgateError):
    """The body is larger than this gateway takes. Send less, or raise gateway.max_body_bytes."""

    status, kind, code = 413, "invalid_request_error", "payload_too_large"


class Overloaded(HeadgateError):
    """The queue of this pipeline is full. Retry after the time given, or raise the pipeline's queue or cap."""

    status, kind, code, retryable = 429, "rate_limit_error", "queue_full", True


class ClientGone(HeadgateError):
    """The client closed the connection before its answer was complete."""

    status, kind, code = 499, "client_closed", "client_closed_request"


class UpstreamFailed(HeadgateError):
    """The replica that answered this request failed and the answer could not be continued. Send it again."""

    status, kind, code, retryable = 502, "server_error", "replica_failed", True


class SchemaViolation(HeadgateError):
    """The model did not produce an answer that fits the JSON schema asked for. Retry, or ease the schema."""

    status, kind, code, retryable = 502, "server_error", "schema_violation", True


class AnswerCut(HeadgateError):
    """The answer reached its limit (max_tokens or the context) before it was complete JSON. Raise max_tokens, or ease
    the schema; sending the same request again will not help."""

    status, kind, code = 422, "invalid_request_error", "answer_cut"


class Unavailable(HeadgateError):
    """No replica can answer this pipeline now. Retry after the time given; `headgate status` says why."""

    status, kind, code, retryable = 503, "server_error", "unavailable", True


class StoreUnavailable(Unavailable):
    """The database cannot be read or written now; Headgate tries again. The message names the reason."""

    code = "store_unavailable"


class StoreRefused(HeadgateError):
    """This Headgate cannot work with this database. The message says what is wrong with it and what to do."""

    status, kind, code = 500, "server_error", "store_refused"


class ReplicaNotReady(Unavailable):
    """A replica did not become ready. The message says what became of it; its log has the details."""

    code = "replica_not_ready"


class AdoptionRefused(Unavailable):
    """A process on record is not, or no longer, the replica it should be. It is not used; a new one is started."""

    code = "adoption_refused"


class DeadlineExceeded(HeadgateError):
    """The request's deadline passed before its answer was complete. Raise the timeout, or ask for less."""

    status, kind, code = 504, "server_error", "deadline_exceeded"


class ConfigError(HeadgateError):
    """The configuration is not valid. The message names file, line, setting and cure."""

    status, kind, code = 400, "invalid_request_error", "invalid_configuration"


class FloorsDoNotFit(ConfigError):
    """The pipelines' floors do not fit their pools together. Lower a floor, give models less, or enlarge a pool."""

    code = "floors_do_not_fit"


class ModelRefused(HeadgateError):
    """This model was refused. The message says what is wrong with it and what to do."""

    status, kind, code = 400, "invalid_request_error", "model_refused"


class DoesNotFit(ModelRefused):
    """The model needs more memory than there is. The message names the missing bytes."""

    code = "does_not_fit"


class AlreadyRunning(HeadgateError):
    """Headgate already runs on this state folder. `headgate status` shows it, `headgate down` stops it."""

    status, kind, code = 409, "invalid_request_error", "already_running"


class NotRunning(HeadgateError):
    """Headgate does not run on this state folder. `headgate up` starts it."""

    status, kind, code = 503, "server_error", "not_running"
