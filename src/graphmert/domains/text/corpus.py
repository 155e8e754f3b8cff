"""Documents: the texts a run reads, one row each."""

from __future__ import annotations

import pyarrow as pa

from graphmert.documents import make_documents
from graphmert.kg.obo import OboDocument

TITLE_MARK = ": "


def documents_from_definitions(obo: OboDocument) -> pa.Table:
    """Return one document for each term that has a definition: "name: definition".

    The document's id is the term's; its meta names the entity, whose title mention is the name.

    Raises:
        DataError: no term has a definition.
    """
    entities = obo.kg.entities
    return make_documents(
        (
            entity_id,
            entities[entity_id].name,
            entities[entity_id].name + TITLE_MARK + obo.definitions[entity_id],
            obo.source,
            {"entity_id": entity_id},
        )
        for entity_id in sorted(obo.definitions)
    )
