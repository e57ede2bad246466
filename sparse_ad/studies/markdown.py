"""A study as Markdown: study.md, and a section of the page of all records."""

from sparse_ad.report import tables
from sparse_ad.report.tables import Table
from sparse_ad.studies.notes import list_notes
from sparse_ad.studies.results import StudyRecord
from sparse_ad.studies.tables import list_tables


def study_page(record: StudyRecord) -> str:
    """Returns all tables of a study, and below them how to read them."""
    sections = [f"**{table.title}**\n\n{markdown(table)}" for table in list_tables(record)]
    notes = "\n".join(f"- {note}" for note in list_notes(record))
    return "\n\n".join([*sections, notes])


def markdown(table: Table) -> str:
    """Returns a table, without its title."""
    return tables.markdown(table.head, table.rows)
