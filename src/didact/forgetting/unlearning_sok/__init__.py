"""The taxonomy of unlearning by intention, and the audit that tells removal from suppression."""

from didact.forgetting.unlearning_sok.audit import AuditReport, audit
from didact.forgetting.unlearning_sok.study import Audited, IntentionAudit
from didact.forgetting.unlearning_sok.taxonomy import PLACES, Place, place_of, select

__all__ = ["PLACES", "AuditReport", "Audited", "IntentionAudit", "Place", "audit", "place_of", "select"]
