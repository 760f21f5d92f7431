"""The two ways a command ends early: the user's mistake (exit code 2) and a failure of the machine or the run (1)."""


class UserError(Exception):
    """Something the user can mend: one line that says what was wrong, where, what was expected and what to do."""

    exit_code = 2


class Failure(Exception):
    """Something went wrong while working (disk full, training collapsed): one line; what was computed is kept."""

    exit_code = 1
