"""The forms of what the API takes and gives: they make its description, and check labels."""

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator, model_validator

from anomaly.incidents.labels import LabelName
from anomaly.readings.record import MACHINES, METERS

MOST_CHARACTERS = 1000
"""Of a note. Chosen."""

EXAMPLE: dict[str, Any] = {
    "utc_timestamp": "2024-02-10 14:30:00",
    "cet_cest_timestamp": "2024-02-10 15:30:00",
    **{name: 40.5 + 10 * number for number, name in enumerate(METERS)},
}
_TIME = "ISO 8601; UTC where it names no zone"


class Detail(BaseModel):
    """What is wrong, in one line."""

    detail: str


_METER: dict[str, Any] = {
    name: (
        float | str | None,
        Field(None, description="null: no reading" if name in MACHINES else "not needed"),
    )
    for name in METERS
}
Record: Any = create_model(
    "Record",
    __doc__="The prototype's record of 22 fields; only the time and machines are needed.",
    __config__=ConfigDict(json_schema_extra={"example": EXAMPLE}),
    utc_timestamp=(str, Field(description=_TIME, examples=["2024-02-10 14:30:00"])),
    cet_cest_timestamp=(str | None, Field(None, description="not needed")),
    **_METER,
)

RealTimeRecord: Any = create_model(
    "RealTimeRecord",
    __base__=Record,
    previous=(
        list[Record] | None,
        Field(None, description="earlier records, to be compared with in place of the meter table"),
    ),
)


class Batch(BaseModel):
    """Records, and earlier ones that they are compared with in place of the meter table."""

    records: list[Record]
    previous: list[Record] | None = None


class Prediction(BaseModel):
    """The verdict on a machine's reading; with ``ANOMALY_API_STRICT`` its first three fields."""

    utc_timestamp: str = Field(description="as sent, UTC", examples=["2024-02-10T14:30:00"])
    machine_id: int
    anomaly: int = Field(description="1: anomaly, 0: normal, or a fault of the meter")
    anomaly_score: float | None = Field(None, description="0 to 1; null: a fault of the meter")
    reason: str | None = None
    quality: str | None = Field(None, description="`ok`, or what is odd about the reading")
    model_version: int | None = None


class Predictions(BaseModel):
    """One verdict per record and machine with a reading, by time, then machine."""

    prediction_result: list[Prediction]


_VERDICT: dict[str, Any] = {
    "utc_timestamp": "2026-03-09T23:45:00Z", "machine_id": 3, "machine": "Saw", "site": "Hall 1",
    "reading": 204853.1, "power_kw": 22.5, "expected_kw": 0.3, "energy_kwh": 5.625, "anomaly": 1,
    "anomaly_score": 0.93, "threshold": 0.5, "reason": "22.5 kW, 22.2 kW above the usual 0.3 kW",
    "quality": "ok", "origin": "live", "model_version": 4, "scored_at": "2026-03-10T00:00:09Z",
}  # fmt: skip


class Verdict(BaseModel):
    """A verdict as the view ``bi.verdicts`` has it."""

    model_config = ConfigDict(json_schema_extra={"example": _VERDICT})

    utc_timestamp: datetime
    machine_id: int
    machine: str
    site: str
    reading: float
    power_kw: float | None
    expected_kw: float | None
    energy_kwh: float | None
    anomaly: int
    anomaly_score: float | None
    threshold: float | None
    reason: str | None
    quality: str
    origin: str
    model_version: int
    scored_at: datetime


_INCIDENT: dict[str, Any] = {
    "incident_id": 12, "machine_id": 3, "machine": "Saw", "site": "Hall 1", "kind": "machine",
    "state": "open", "severity": "critical", "started_at": "2026-03-09T22:30:00Z",
    "ended_at": None, "reason": "22.5 kW, 22.2 kW above the usual 0.3 kW", "peak_score": 0.97,
    "excess_kwh": 27.8, "readings": 6, "label": None, "acknowledged_by": None,
    "updated_at": "2026-03-10T00:00:09Z",
}  # fmt: skip


class Incident(BaseModel):
    """An incident as the view ``bi.incidents`` has it."""

    model_config = ConfigDict(json_schema_extra={"example": _INCIDENT})

    incident_id: int
    machine_id: int
    machine: str
    site: str
    kind: str
    state: str
    severity: str
    started_at: datetime
    ended_at: datetime | None
    reason: str
    peak_score: float | None
    excess_kwh: float
    readings: int
    label: str | None
    acknowledged_by: str | None
    updated_at: datetime


_MACHINE: dict[str, Any] = {
    "machine_id": 3, "machine": "Saw", "site": "Hall 1", "time_zone": "Europe/Berlin",
    "active_from": None, "active_to": None, "max_power_kw": 40.0, "alert_budget": None,
    "source_key": "machine_3",
}  # fmt: skip


class Machine(BaseModel):
    """A machine as the view ``bi.machines`` has it."""

    model_config = ConfigDict(json_schema_extra={"example": _MACHINE})

    machine_id: int
    machine: str
    site: str
    time_zone: str
    active_from: datetime | None
    active_to: datetime | None
    max_power_kw: float | None
    alert_budget: float | None
    source_key: str


_MODELVERSION: dict[str, Any] = {
    "model_version": 4, "detector": "signals", "status": "registered",
    "trained_from": "2026-01-12T00:00:00Z", "trained_to": "2026-03-02T00:00:00Z",
    "readings": 23520, "registered_at": "2026-03-09T02:00:41Z", "registered_by": "retrain_model",
    "judges_new_readings": True,
}  # fmt: skip


class ModelVersion(BaseModel):
    """A version of the model as the view ``bi.model_versions`` has it."""

    model_config = ConfigDict(json_schema_extra={"example": _MODELVERSION})

    model_version: int
    detector: str
    status: str
    trained_from: datetime
    trained_to: datetime
    readings: int
    registered_at: datetime
    registered_by: str
    judges_new_readings: bool


_Next = Annotated[str | None, Field(description="`after` of the next page; null: it is the last")]


class Verdicts(BaseModel):
    """A page of verdicts, by machine, then time."""

    verdicts: list[Verdict]
    next: _Next


class Incidents(BaseModel):
    """A page of incidents, newest first."""

    incidents: list[Incident]
    next: _Next


class Machines(BaseModel):
    """A page of machines, by number."""

    machines: list[Machine]
    next: _Next


class ModelVersions(BaseModel):
    """A page of model versions, newest first."""

    models: list[ModelVersion]
    next: _Next


class NewLabel(BaseModel):
    """What an incident was; or what a machine was or will be from a start to an end."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"incident_id": 12, "label": "false_alarm", "note": "cleaning"},
                {
                    "machine": "Saw",
                    "start": "2026-03-07T06:00Z",
                    "end": "2026-03-07T14:00Z",
                    "label": "maintenance",
                },
            ]
        },
    )

    label: LabelName
    incident_id: int | None = Field(None, ge=1, lt=2**63, strict=True)
    machine: str | int | None = Field(None, description="id or name", examples=["3"])
    start: str | None = Field(None, description="ISO 8601 with a zone, or a day (UTC)")
    end: str | None = Field(None, description="not included")
    note: str = Field("", max_length=MOST_CHARACTERS)

    @field_validator("note", "machine")
    @classmethod
    def _can_be_stored(cls, text: str | int | None) -> str | int | None:
        if isinstance(text, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text):
            raise ValueError("it holds a character that no database stores: leave it out")
        return text

    @model_validator(mode="after")
    def _is_about_one_thing(self) -> Self:
        of_machine = (self.machine, self.start, self.end)
        given = [value is not None for value in of_machine]
        if self.incident_id is None and not all(given):
            raise ValueError("send incident_id, or machine, start and end")
        if self.incident_id is not None and any(given):
            raise ValueError("send incident_id, or machine, start and end, and not both")
        return self


_LABELGIVEN: dict[str, Any] = {
    "label_id": 7, "machine_id": 3, "machine": "Saw", "label": "maintenance",
    "start": "2026-03-09T06:00:00Z", "end": "2026-03-09T08:00:00Z", "labelled_by": "operator",
    "incidents_changed": 1,
}  # fmt: skip


class LabelGiven(BaseModel):
    """A label that is on record now; the same one given again is the same row."""

    model_config = ConfigDict(json_schema_extra={"example": _LABELGIVEN})

    label_id: int
    machine_id: int
    machine: str
    label: LabelName
    start: datetime
    end: datetime
    labelled_by: str
    incidents_changed: int


class Health(BaseModel):
    """Whether records can be judged."""

    status: str = Field(description="`ok`, or what is missing")
    model_version: int | None
    version: str


class Alive(BaseModel):
    """The process answers."""

    status: str


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Descriptions of refusals, for the description of a call."""
    return {status: {"model": Detail, "description": _REFUSALS[status]} for status in statuses}


_REFUSALS = {
    401: "Nobody is known by this key or token",
    403: "This caller may not do it",
    413: "The body, or the list of records, is too large",
    422: "What was sent cannot be read; the detail names the field",
    429: "Too many requests in this minute; `Retry-After` says when to ask again",
    503: "There is no model yet, the database does not answer, or too many requests wait",
    504: "The answer took too long",
}
