"""Views name the keys that records have: a record that changed must change what is promised of it."""

from dataclasses import fields
from typing import Any

import pytest

from fleetctl.cli import (
    audit,
    batch,
    broker,
    ca,
    certs,
    claim,
    crl,
    enrolment,
    factory,
    following,
    groups,
    init,
    inspection,
    issuing,
    lifecycle,
    ota,
    profile,
    provision,
    publish,
    renewing,
    rollouts,
    tail,
    token,
    twin,
    twinning,
)
from fleetctl.mqtt.settings import Finding
from fleetctl.pki.inspect import Inspected
from fleetctl.pki.verify import Step
from fleetctl.platforms import device_records, devices, messages, twins, updates
from fleetctl.platforms.local.applying import Applied
from fleetctl.platforms.local.batches import BatchEntry, BatchReport, ProfileEntry
from fleetctl.platforms.local.broker import BrokerEvent
from fleetctl.platforms.local.bulk import BulkIssued
from fleetctl.platforms.local.certificates import CertificateDetail, CertificateEntry, Issued
from fleetctl.platforms.local.checking import Finding as CertificateFinding
from fleetctl.platforms.local.enrolment.approval import Decision, PendingEnrolment, Reset
from fleetctl.platforms.local.enrolment.claims import Claim, ClaimMade, ClaimRevoked
from fleetctl.platforms.local.enrolment.events import ServeEvent
from fleetctl.platforms.local.exporting import Exported as IdentityExported
from fleetctl.platforms.local.groups import Group, GroupDeleted, GroupDetail, GroupMade
from fleetctl.platforms.local.init import ContextMade
from fleetctl.platforms.local.judging import Print
from fleetctl.platforms.local.manufacture import Manufactured
from fleetctl.platforms.local.overview import AuthorityEntry, Exported, ListStatus
from fleetctl.platforms.local.rendering import RenderedFile
from fleetctl.platforms.local.renewal import Renewed
from fleetctl.platforms.local.revocation import Revocation
from fleetctl.platforms.local.signing import RequestMade, Signed
from fleetctl.platforms.local.succession import AuthorityChange
from fleetctl.platforms.local.tokens import NewToken, TokenEntry, TokenRevoked
from fleetctl.platforms.local.trail import Change
from fleetctl.present.view import View, camel

PAIRS: list[tuple[View, Any]] = [
    (token.NEW, NewToken),
    (token.TOKEN, TokenEntry),
    (token.REVOKED, TokenRevoked),
    (groups.GROUP, Group),
    (groups.DETAIL, GroupDetail),
    (groups.MADE, GroupMade),
    (groups.DELETED, GroupDeleted),
    (audit.CHANGE, Change),
    (provision.DEVICE, devices.DeviceEntry),
    (provision.DETAIL, device_records.DeviceDetail),
    (provision.PROVISIONED, device_records.Provisioned),
    (provision.IMPORTED, device_records.Imported),
    (provision.REMOVED, device_records.Removed),
    (lifecycle.STATUS, device_records.DeviceStatus),
    (lifecycle.TRANSITION, device_records.Transition),
    (lifecycle.REPLACED, device_records.Replaced),
    (batch.BATCH, BatchEntry),
    (batch.REPORT, BatchReport),
    (profile.PROFILE, ProfileEntry),
    (factory.MANUFACTURED, Manufactured),
    (twin.TWIN, twins.Twin),
    (twin.CHANGE, twins.TwinChange),
    (twin.DIFFERENCE, twins.TwinDifference),
    (twinning.VERSION, twins.TwinVersion),
    (twinning.SCHEMA, twins.TwinSchema),
    (following.CONVERGENCE, twins.TwinConvergence),
    (following.EVENT, twins.TwinEvent),
    (publish.RESULT, messages.CommandResult),
    (publish.PUBLISHED, messages.RawPublished),
    (tail.MESSAGE, messages.TailRecord),
    (ota.RELEASE, updates.ReleaseEntry),
    (rollouts.PLAN, updates.PlanEntry),
    (rollouts.ROLLOUT, updates.RolloutEntry),
    (certs.CERTIFICATE, CertificateEntry),
    (certs.DETAIL, CertificateDetail),
    (issuing.ISSUED, Issued),
    (inspection.FINDING, CertificateFinding),
    (inspection.INSPECTED, Inspected),
    (inspection.STEP, Step),
    (inspection.PRINT, Print),
    (inspection.EXPORTED, IdentityExported),
    (renewing.RENEWED, Renewed),
    (issuing.BULK, BulkIssued),
    (issuing.SIGNED, Signed),
    (issuing.REQUEST, RequestMade),
    (certs.REVOCATION, Revocation),
    (ca.AUTHORITY, AuthorityEntry),
    (ca.CHANGE, AuthorityChange),
    (ca.EXPORTED, Exported),
    (crl.LIST, ListStatus),
    (init.MADE, ContextMade),
    (broker.EVENT, BrokerEvent),
    (claim.CLAIM, Claim),
    (claim.MADE, ClaimMade),
    (claim.REVOKED, ClaimRevoked),
    (enrolment.EVENT, ServeEvent),
    (enrolment.PENDING, PendingEnrolment),
    (enrolment.DECISION, Decision),
    (enrolment.RESET, Reset),
    (broker.FILE, RenderedFile),
    (broker.FINDING, Finding),
    (broker.APPLIED, Applied),
]


@pytest.mark.parametrize(("view", "record"), PAIRS, ids=lambda each: getattr(each, "name", ""))
def test_a_view_names_the_keys_of_its_record(view: View, record: Any) -> None:
    keys = set(view.keys())
    assert keys == {camel(each.name) for each in fields(record)}
    assert view.id in keys


@pytest.mark.parametrize(("view", "record"), PAIRS, ids=lambda each: getattr(each, "name", ""))
def test_a_view_says_where_a_key_may_be_null(view: View, record: Any) -> None:
    optional = {camel(each.name) for each in fields(record) if "None" in str(each.type)}
    anything = {each.key for each in view.fields if each.kind == "any"}
    assert {each.key for each in view.fields if each.nullable} - anything == optional - anything
