"""Every setting of the service: built once at a process's edge, passed in, described, bounded.

Read from the environment as ``BASISCONV_<NAME>``. Nothing secret has a default.
"""

from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MEGABYTE = 1_000_000


_ADDRESSES: Final = {  # setting → what it looks like, schemes
    "database_url": ("postgresql+psycopg://user:password@host/name", {"postgresql"}),
    "broker_url": ("redis://:password@host:6379/0", {"redis", "rediss", "unix", "sentinel"}),
}


class Settings(BaseSettings):
    # A wrong value is named, not shown: it may be a secret.
    model_config = SettingsConfigDict(
        env_prefix="BASISCONV_", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    # Servers
    database_url: SecretStr = Field(
        description="PostgreSQL, as postgresql+psycopg://user:password@host/name."
    )
    database_seconds: float = Field(
        30,
        ge=1,
        le=3600,
        description="How long an answer of PostgreSQL is waited for before the connection is given up; a "
        "worker waits for half of `grace_seconds` at most.",
    )
    broker_url: SecretStr = Field(description="Valkey or Redis for Celery and the event bus, as redis://…")
    secret_key: SecretStr = Field(
        min_length=32,
        description="Keys the hashes of API keys and signs session cookies; 32 characters or more.",
    )
    storage_url: str = Field(
        "",
        description="Where objects lie: s3://bucket/prefix, or file:///folder. Empty: var_dir/objects.",
    )
    var_dir: Path = Field(
        Path("var"), description="Folder for scratch space, caches and, embedded, all data."
    )

    # Web
    public_url: str = Field("http://127.0.0.1:8000", description="How browsers reach the service.")
    web_processes: int = Field(
        1,
        ge=1,
        le=64,
        description="Web processes that `make run` starts on its port; each takes up to a core, 150 MB and "
        "20 connections to the database.",
    )
    sign_in_token: SecretStr | None = Field(
        None, description="One-run token of the sign-in link that `make run` prints; unset: no such link."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log event kept."
    )
    log_format: Literal["console", "json"] = Field(
        "json", description="How log events are written to stderr."
    )
    metrics_token: SecretStr | None = Field(
        None,
        min_length=16,
        description="A scraper's own token for `/metrics`, beside API keys with the scope `read`; it works "
        "while the database is away.",
    )
    sse_seconds: float = Field(
        600,
        ge=1,
        le=86_400,
        description="Longest life of one event stream, in seconds; clients resume by themselves.",
    )
    max_requests_at_work: int = Field(
        100,
        ge=0,
        description="Requests that one web process answers at once; more are refused with `overloaded` "
        "instead of waiting. Health, metrics, static files, event streams and uploads count for nothing. "
        "0 = any number.",
    )

    # Limits
    max_model_bytes: int = Field(500 * MEGABYTE, ge=1, description="Largest uploaded network, in bytes.")
    max_dataset_bytes: int = Field(5_000 * MEGABYTE, ge=1, description="Largest uploaded data set, in bytes.")
    upload_seconds: float = Field(
        86_400,
        ge=60,
        le=2_592_000,
        description="A resumable upload that nobody continues or uses is deleted after so long, in seconds.",
    )
    max_json_bytes: int = Field(2 * MEGABYTE, ge=1_000, description="Largest JSON request body, in bytes.")
    max_batch_bytes: int = Field(
        8 * MEGABYTE, ge=1_000, description="Largest body or file that makes a batch, in bytes."
    )
    max_batch_jobs: int = Field(10_000, ge=1, le=100_000, description="Most jobs in one batch.")
    max_model_macs: int = Field(
        500_000_000_000,
        ge=1,
        description="Most multiplications of one call of an uploaded network, on one image or on the batch "
        "that its file fixes.",
    )
    max_model_values: int = Field(
        20_000_000_000, ge=1, description="Most numbers that one such call reads or writes in its operators."
    )
    max_dataset_images: int = Field(2_000_000, ge=1, description="Most images in one data set.")
    max_image_pixels: int = Field(50_000_000, ge=1, description="Largest single image, in pixels.")

    # Quotas: of every key that has no limit of its own
    max_stored_bytes: int = Field(
        100_000 * MEGABYTE,
        ge=0,
        description="Most bytes that an owner's uploads, their checked copies and job files take; 0 = any.",
    )
    max_active_jobs: int = Field(
        10_000,
        ge=0,
        description="Most jobs and plans of an owner that wait or run at once, those of batches too; 0 = any "
        "number.",
    )
    max_requests_per_minute: int = Field(
        6_000, ge=0, description="Requests of one key in a minute; a burst may use them up at once. 0 = any."
    )

    # Webhooks
    webhook_private_addresses: bool = Field(
        False,
        description="Whether webhooks may go to addresses inside the service's own network. Whoever has a "
        "key can then make it ask them, so only where all who have keys may reach them anyway.",
    )
    webhook_seconds: float = Field(
        2, ge=0.1, le=600, description="How often messages for webhooks are looked for and sent."
    )
    webhook_timeout_seconds: float = Field(
        15, ge=0.1, le=60, description="How long a webhook's receiver may take to answer."
    )

    # Keeping
    retention_days: float = Field(
        0,
        ge=0,
        le=36_500,
        description="Ended jobs with their files, and plans, go so many days after their end; 0 = never.",
    )
    sweep_seconds: float = Field(
        3_600,
        ge=1,
        le=86_400,
        description="How often what is no longer needed is looked for and deleted, on disk and in rows.",
    )

    # Work
    lease_seconds: float = Field(
        30, ge=1, le=3600, description="A worker silent for this long has lost its job."
    )
    heartbeat_seconds: float = Field(5, ge=0.1, le=600, description="How often a worker renews its lease.")
    reaper_seconds: float = Field(5, ge=0.1, le=600, description="How often lost work is looked for.")
    ring_again_seconds: float = Field(
        60, ge=1, le=86_400, description="Queued this long unclaimed: ring again."
    )
    max_attempts: int = Field(
        3, ge=1, le=10, description="Attempts a job gets when its child or worker is lost."
    )
    retry_seconds: float = Field(
        2, ge=0, le=3600, description="Wait before the second attempt; doubles after that."
    )
    keep_lost_hours: float = Field(
        168,
        ge=0,
        le=87_600,
        description="How long the checkpoint of a job is kept that used up its attempts.",
    )
    job_seconds: float = Field(86_400, ge=1, description="Longest run of one job attempt, in seconds.")
    plan_seconds: float = Field(1_800, ge=1, description="Longest making of one plan, in seconds.")
    inspection_seconds: float = Field(300, ge=1, description="Longest inspection of one upload, in seconds.")
    inspection_bytes: int = Field(
        8_000 * MEGABYTE, ge=500 * MEGABYTE, description="Address space of an inspection."
    )
    job_bytes: int = Field(0, ge=0, description="Address space of a job's child on CPU; 0 = no limit.")
    disk_reserve_bytes: int = Field(
        1_000 * MEGABYTE,
        ge=0,
        description="Work that leaves less of its disk free than this is ended, and a web process with less "
        "says at `/readyz` that it is not ready.",
    )
    sandbox_readable: str = Field(
        "",
        description="Further folders, separated by colons, that children may read: for a Python whose "
        "libraries lie outside its own folders, /usr and /lib.",
    )
    grace_seconds: float = Field(
        20, ge=1, le=600, description="How long a stopping worker may take to save and hand back its job."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where jobs compute.")
    latency_device: Literal["cpu", "cuda"] = Field(
        "cpu",
        description="Where networks are timed, for `latency_ms` and for targets of time. `cuda` wants a CUDA "
        "device and `onnxruntime-gpu`; a job ends with `unavailable` where either is missing.",
    )
    torch_threads: int = Field(0, ge=0, le=256, description="Threads of a job's child; 0 = all cores.")
    cache_bytes: int = Field(
        20_000 * MEGABYTE, ge=0, description="Decoded data sets kept on disk by a worker."
    )

    @field_validator("database_url", "broker_url")
    @classmethod
    def is_an_address(cls, url: SecretStr, info: ValidationInfo) -> SecretStr:
        """Refuse what no driver can read, before one repeats it, password and all, in its own error."""
        form, schemes = _ADDRESSES[str(info.field_name)]
        try:
            parts = urlsplit(url.get_secret_value())
            known = parts.scheme.partition("+")[0] in schemes and (parts.port is None or bool(parts.hostname))
        except ValueError:  # a port that is no number: the colon of a password whose @host was forgotten
            known = False
        if not known:
            raise ValueError(f"is no address of the form {form}")
        return url

    def is_https(self) -> bool:
        """Whether browsers reach the service over TLS."""
        return self.public_url.startswith("https://")

    def wants_gpu(self) -> bool:
        """Whether jobs use a GPU where there is one."""
        return self.device != "cpu" or self.latency_device == "cuda"

    def objects_url(self) -> str:
        """The storage URL, with the default filled in."""
        return self.storage_url or (self.var_dir.resolve() / "objects").as_uri()


def load_settings() -> Settings:
    """Settings from the environment; a missing or wrong one names itself."""
    return Settings()
