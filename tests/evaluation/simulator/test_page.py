"""The check of a slice as a page: its tables are of the figures, and writing it again changes nothing."""

from __future__ import annotations

from pathlib import Path

from evaluation.simulator import check, page


def test_the_check_of_a_slice_is_a_part_of_the_page(tmp_path: Path) -> None:
    result, paper, image = check.run(quick=True), tmp_path / "paper.md", tmp_path / "simulator.png"
    page.draw(result, image)
    paper.write_text("# Page\n\nbefore\n")
    page.write_paper(paper, result, image)
    text = paper.read_text()
    page.write_paper(paper, result, image)
    assert paper.read_text() == text
    assert text.startswith("# Page\n\nbefore\n\n" + page.BEGIN)
    assert image.read_bytes().startswith(b"\x89PNG")
    cells = {line.split(" | ")[0].removeprefix("| "): line.split(" | ") for line in text.splitlines()}
    losses = [float(cell) for cell in cells["long view"][2:6]]
    assert losses == [round(result["heads"]["long_view"]["log_loss"][who], 4) for who in page.WHO]
    assert losses[0] < min(losses[1:])
    assert cells["sessions of one item"][2] == f"{result['session_length']['log'][0]:.4f} |"
    assert float(cells[page.DRIFT_AND_FATIGUE["affinity"]][1]) == round(
        result["coefficients"]["long_view"]["affinity"], 3
    )
