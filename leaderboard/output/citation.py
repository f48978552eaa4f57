"""How a board is cited: BibTeX for its page, and metadata that a repository of data sets takes for a DOI."""

from __future__ import annotations

from typing import Any

from kdbench.leaderboard.model.board import Board
from kdbench.leaderboard.output.render import Site

NAME = "kdbench"
TITLE = "kdbench: a benchmark of knowledge-distillation methods and their training cost"
MAINTAINERS = "The kdbench contributors"
LICENCE = "https://creativecommons.org/licenses/by/4.0/"


def authors(board: Board) -> list[str]:
    """Those who keep the board, then everybody who signed a record that stands, by name."""
    signed = {run["submitter"] for run in board.source.runs.values() if run["submitter"] and not run["is_withdrawn"]}
    return [MAINTAINERS, *sorted(signed - {MAINTAINERS})]


def bibtex(board: Board, site: Site) -> str:
    """An entry of the board as it stands."""
    lines = [
        f"@misc{{{NAME}-{site.snapshot_id},",
        f"  title = {{{TITLE}}},",
        f"  author = {{{' and '.join(f'{{{name}}}' for name in authors(board))}}},",
        f"  year = {{{site.built[:4]}}},",
        f"  note = {{Snapshot {_version(site)}, statistics version {site.statistics}}},",
    ]
    return "\n".join([*lines, *([f"  url = {{{site.repository}}},"] if site.repository else []), "}"])


def datacite(board: Board, site: Site) -> dict[str, Any]:
    """Attributes of DataCite's metadata schema 4, all that it requires but the DOI, which its registration gives."""
    papers = sorted({str(ref.card.links.paper) for ref in board.catalogue.methods.values() if ref.card.links.paper})
    about = (
        f"{site.records} records of distillation runs under one protocol, with scores by seed, paired timings and the "
        f"configuration of every run; snapshot {site.snapshot_id}, statistics version {site.statistics}."
    )
    found: dict[str, Any] = {
        "schemaVersion": "http://datacite.org/schema/kernel-4",
        "creators": [
            {"name": name, "nameType": "Organizational" if name == MAINTAINERS else "Personal"}
            for name in authors(board)
        ],
        "titles": [{"title": TITLE}],
        "publisher": MAINTAINERS,
        "publicationYear": int(site.built[:4]),
        "types": {"resourceTypeGeneral": "Dataset", "resourceType": "Benchmark results"},
        "version": _version(site),
        "rightsList": [{"rights": "CC BY 4.0", "rightsUri": LICENCE, "rightsIdentifier": "cc-by-4.0"}],
        "descriptions": [{"description": about, "descriptionType": "Abstract"}],
        "relatedIdentifiers": [
            {"relatedIdentifier": url, "relatedIdentifierType": "URL", "relationType": "References"} for url in papers
        ],
    }
    return {**found, "url": site.repository} if site.repository else found


def _version(site: Site) -> str:
    return site.frozen or site.snapshot_id
