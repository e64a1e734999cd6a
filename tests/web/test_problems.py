"""How a stored problem is shown on the pages."""

from app.core.errors import TargetInfeasible
from app.web.rendering import environment

PAGE = '{% import "macros.html" as ui %}{{ ui.problem(error) }}'


def test_what_could_be_achieved_is_told_as_a_share() -> None:
    error = TargetInfeasible("The target keeps 1.0% of the macs.", achievable=0.2345, hint="Ask for more.")
    shown = environment().from_string(PAGE).render(error=error.document())
    assert "Achievable: 23.4" in shown or "Achievable: 23.5" in shown
    assert "Ask for more." in shown


def test_a_problem_without_such_a_figure_is_shown_without_it() -> None:
    shown = environment().from_string(PAGE).render(error=TargetInfeasible("No.").document())
    assert "Achievable" not in shown
