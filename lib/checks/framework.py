"""How a check works: run the answer safely, compare, and name the mistake.

An exercise is its solution under `@exercise(...)`, other right answers under `@name.right`, known
mistakes under `@name.wrong("what to say")`, and properties under `@name.property("what holds")`.
Where many outputs are right, `judge=` decides in place of the comparison with the solution's:

    @exercise(title="Row sums", difficulty="easy", minutes=3, cases=some_matrices, axes="T")
    def row_sums(x):
        return x.sum(axis=1)

    @row_sums.wrong("You summed each column: axis 0 runs down, axis 1 runs across.")
    def summed_columns(x):
        return x.sum(axis=0)

A check looks at the interface, then purity, properties and values. An answer that fails is compared
with the known mistakes: one that gives the same on every case is named. A check never raises.
Left out: sandboxing. The answer is the reader's own code in the reader's own kernel.
"""

import ast
import contextlib
import copy
import ctypes
import dis
import html
import inspect
import io
import re
import signal
import textwrap
import threading
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from lib.checks.compare import (
    describe,
    different_form,
    part_that_differs,
    same,
    where_they_differ,
)
from lib.figures import Code, styled

INPUTS = {"numpy": "NumPy arrays", "torch": "torch tensors"}
PASSED, FAILED, NOT_ATTEMPTED = "passed", "failed", "not attempted"
SIGNS = {PASSED: "✓ passed", FAILED: "✗ not yet", NOT_ATTEMPTED: "· not attempted"}


@dataclass(frozen=True)
class Verdict:
    """What a check found: a status, a message, and on failure perhaps a traceback to ask for."""

    status: str
    message: str
    exercise: "Exercise" = field(repr=False, default=None)
    traceback: str = field(repr=False, default="")

    def hint(self) -> str:
        """The exercise's next hint."""
        return self.exercise.hint()

    def solution(self) -> Code:
        """The source of the exercise's solution."""
        return self.exercise.solution()

    def __repr__(self) -> str:
        return f"{SIGNS[self.status]} · {self.exercise.key}\n{self.message}"

    def _repr_html_(self) -> str:
        """The verdict alone, and while it is not passed, the hints, folded: for the static page."""
        text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(self.message))
        paragraphs = "".join(f"<p>{p}</p>" for p in text.replace("\n", "<br>").split("<br><br>"))
        hints = "".join(
            f"<details><summary>Hint {i}</summary><p>{html.escape(hint)}</p></details>"
            for i, hint in enumerate(self.exercise.hints, 1)
            if self.status != PASSED
        )
        head = f"<strong>{SIGNS[self.status]}</strong> · {html.escape(self.exercise.title)}"
        css = self.status.replace(" ", "-")
        return styled(f'<div class="b2l-verdict b2l-{css}"><p>{head}</p>{paragraphs}{hints}</div>')

    def _repr_mimebundle_(self, include=None, exclude=None):
        """With a kernel: a button gives one hint after another, an accordion the solution."""
        import ipywidgets

        bundle = {"text/plain": repr(self), "text/html": self._repr_html_()}
        if self.status == PASSED:
            return bundle
        head = Verdict._repr_html_(self).split("<details>")[0]
        hints = ipywidgets.HTML()
        button = ipywidgets.Button(description="A hint, please")
        given = []

        def one_more(_):
            given.append(f"<p>{html.escape(self.exercise.hint())}</p>")
            hints.value = "".join(given)

        button.on_click(one_more)
        solution = ipywidgets.HTML(Code(self.solution())._repr_html_())
        fold = ipywidgets.Accordion([solution], titles=["The solution"], selected_index=None)
        box = ipywidgets.VBox([ipywidgets.HTML(head), button, hints, fold])
        return {**(box._repr_mimebundle_() or {}), **bundle}


class TimeUp(BaseException):
    """Raised in an answer that runs too long; no Exception, so `except Exception` lets it by."""


@contextlib.contextmanager
def time_limit(seconds: float):
    """Raises `TimeUp` in the body after `seconds`: by an alarm if there is one, else a watchdog."""
    main = threading.current_thread() is threading.main_thread()
    if main and hasattr(signal, "setitimer"):
        armed = [True]

        def ring(*_):
            if armed:
                raise TimeUp

        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(
            signal.ITIMER_REAL, seconds, 0.5
        )  # again, if a bare `except` ate the first
        try:
            yield
        finally:
            armed.clear()  # first: an alarm that rings from here on must not raise
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    else:
        raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
        here = ctypes.c_ulong(threading.get_ident())
        dog = threading.Timer(seconds, raise_in, (here, ctypes.py_object(TimeUp)))
        dog.daemon = True
        dog.start()
        try:
            yield
        finally:
            dog.cancel()


class Trouble(Exception):
    """Ends a check early with a verdict: a status and what to say."""

    def __init__(self, message, status=FAILED, *, final=False, error=None):
        super().__init__(message)
        self.message, self.status = message, status
        self.final = final or status == NOT_ATTEMPTED  # the other cases will not tell more
        self.error = error  # what the answer itself raised: perhaps it wants another kind of input

    @property
    def trace(self) -> str:
        return "".join(traceback.format_exception(self.error)) if self.error else ""


class Exercise:
    """One exercise: call it on an answer and it gives a `Verdict`."""

    seconds = 5.0  # for all calls of one check together

    def __init__(
        self,
        solve: Callable,
        *,
        title: str,
        difficulty: str,  # easy, medium or hard
        minutes: int,
        cases: Callable,  # () -> list of argument tuples, the smallest first
        axes: str | dict[str, str] = "",  # of the result, for messages: "B T S"; or {part: axes}
        hints: tuple = (),
        tol: float = 1e-5,
        canonical: Callable | None = None,  # brings equivalent results to one form
        judge: Callable | None = None,  # (out, *args) -> what is wrong, or "": many are right
    ):
        self.solve, self.name = solve, solve.__name__
        self.chapter = solve.__module__.rpartition(".")[2]
        self.title, self.difficulty, self.minutes = title, difficulty, minutes
        self.parts, self.axes = (axes, []) if isinstance(axes, dict) else ({}, axes.split())
        self.cases, self.hints, self.tol = cases, tuple(hints), tol
        self.canonical, self.judge = canonical or (lambda out: out), judge
        self.mistakes: list[tuple[str, Callable]] = []
        self.rights: list[Callable] = []
        self.properties: list[tuple[str, Callable]] = []
        self._hints_given = 0
        self.__doc__ = f"{title}. {inspect.getdoc(solve) or ''}".strip()

    @property
    def key(self) -> str:
        """`chapter.exercise`, the exercise's name in `EXERCISES` and in the progress file."""
        return f"{self.chapter}.{self.name}"

    def wrong(self, message: str):
        """Registers a known wrong answer with the message for whoever gives the same answers."""
        return lambda function: self.mistakes.append((message, function)) or function

    def right(self, function: Callable) -> Callable:
        """Registers another right answer, in another style; only the tests use it."""
        self.rights.append(function)
        return function

    def property(self, message: str):
        """Registers holds(out, *args) -> bool, checked on every case before the values are."""
        return lambda holds: self.properties.append((message, holds)) or holds

    def hint(self) -> str:
        """The next hint; after the last, where to find the solution."""
        self._hints_given += 1
        if self._hints_given <= len(self.hints):
            number = f"Hint {self._hints_given} of {len(self.hints)}"
            return f"{number}: {self.hints[self._hints_given - 1]}"
        return f"That was the last hint: `checks.{self.key}.solution()` shows a solution."

    def solution(self) -> Code:
        """The source of a solution, complete: with its imports it runs by itself."""
        return Code(source_of(self.solve), f"Solution: {self.title}")

    def __repr__(self) -> str:
        return f"Exercise {self.key}: {self.title} ({self.difficulty}, {self.minutes} min)"

    def __call__(self, answer) -> Verdict:
        """Check an answer. Never raises, whatever the answer is or does."""
        from lib.checks.record import record

        try:
            verdict = self._check(answer)
        except BaseException as error:  # SystemExit and KeyboardInterrupt too
            verdict = Verdict(FAILED, f"The check ended early: {type(error).__name__}.", self)
        record(verdict)
        return verdict

    def _check(self, answer) -> Verdict:
        try:
            self._look_at_interface(answer)
            likely, other = kinds_for(answer)
            try:
                return self._judge(answer, likely)
            except Trouble as trouble:
                if trouble.error is None:
                    raise
                return self._judge_again(answer, other, trouble)
        except Trouble as trouble:
            return Verdict(trouble.status, trouble.message, self, trouble.trace)

    def _judge_again(self, answer, kind: str, first: Trouble) -> Verdict:
        """The verdict on the other kind of input, if the answer turns out to be written for it."""
        try:
            verdict = self._judge(answer, kind)
            return Verdict(PASSED, f"{verdict.message} (It was given {INPUTS[kind]}.)", self)
        except Trouble as second:
            foreign = isinstance(first.error, TypeError | AttributeError)
            # torch's x.transpose(1, 2) swaps two axes, NumPy's wants them all
            foreign |= str(first.error).startswith("axes don't match")
            if second.error is None and foreign:
                raise second from None
            raise first from None

    def _look_at_interface(self, answer) -> None:
        if answer is ... or is_stub(answer):
            raise Trouble(
                "Put your answer in place of `...` and run the cell again.", NOT_ATTEMPTED
            )
        names = list(inspect.signature(self.solve).parameters)
        if not callable(answer) or isinstance(answer, type | types.ModuleType):
            raise Trouble(
                f"This check takes the function itself, {self.name}({', '.join(names)}), "
                f"not called. It was given {describe(answer)}."
            )
        try:
            inspect.signature(answer).bind(*names)
        except TypeError:
            theirs = ", ".join(map(str, inspect.signature(answer).parameters.values()))
            raise Trouble(
                f"Expected a function of {len(names)} arguments, {self.name}({', '.join(names)}); "
                f"yours is ({theirs})."
            ) from None
        except ValueError:  # some built-ins have no signature to look at
            pass

    def _judge(self, answer, kind: str) -> Verdict:
        """The verdict on inputs of one kind, NumPy arrays or torch tensors."""
        cases, outs = self.cases(), []
        with time_limit(self.seconds), np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for i, args in enumerate(cases):
                try:
                    outs.append(self._call(answer, args, kind, quiet=i > 0))
                except Trouble as trouble:
                    if trouble.final:
                        raise
                    outs.append(trouble)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            flaws = [self._flaw(args, out) for args, out in zip(cases, outs)]
            if any(flaws):
                self._diagnose(cases, outs)
                flaw, out = next((f, o) for f, o in zip(flaws, outs) if f)
                raise out if isinstance(out, Trouble) else Trouble(flaw)
        return Verdict(PASSED, f"Right on all {len(cases)} cases.", self)

    def _flaw(self, args, out) -> str:
        """What is wrong with one output, or "": its form first, then properties, then values."""
        if isinstance(out, Trouble):
            return out.message
        given = f"\n\nInput: {self._show(args)}"
        if self.judge:
            flaw = self.judge(out, *args)
            return flaw and flaw + given
        expected = self._plain(self.solve, args)
        right = same(expected, out, self.tol)
        if not right and self.parts and not isinstance(expected, Exception):
            return part_that_differs(expected, out, self.parts, self.tol) + given
        if not right and (form := different_form(expected, out, self.axes)):
            return form + given
        seen = np.asarray(out) if isinstance(expected, np.ndarray) else out
        for message, holds in self.properties:
            if not safely(holds, seen, *args):
                return f"{message}{given}\nYours: {show(out)}"
        return "" if right else where_they_differ(expected, out, self.axes, self.tol) + given

    def _plain(self, function, args):
        """What a function of our own gives on a case, or the exception it raises."""
        try:
            return self.canonical(to_numpy(function(*convert(args, kind_of(function)))))
        except Exception as error:
            return error

    def _call(self, answer, args, kind, quiet):
        """One output, as NumPy; `Trouble` where the call raises, changes its input or wavers."""
        given, before = convert(args, kind), convert(args, kind)
        outs = []
        for once in (quiet, True):
            silence = (
                contextlib.redirect_stdout(io.StringIO()) if once else contextlib.nullcontext()
            )
            try:
                with silence:
                    outs.append(answer(*copy.deepcopy(given)) if outs else answer(*given))
            except TimeUp:
                raise Trouble(
                    f"Stopped: out of time after {self.seconds:g} seconds. Is there a loop that "
                    "never ends? Print its variable to see.",
                    final=True,
                ) from None
            except NotImplementedError:
                raise Trouble("Nothing here yet: the stub still raises.", NOT_ATTEMPTED) from None
            except BaseException as error:
                endless = isinstance(error, RecursionError)
                raise Trouble(what_was_raised(error, args), final=endless, error=error) from None
            if outs[0] is None:
                raise Trouble("Your function gave None. Is there a `return` at its end?")
            if outs[0] is ...:
                raise Trouble("There is still a `...` to replace.", NOT_ATTEMPTED)
            if isinstance(outs[0], Iterator):
                raise Trouble(
                    f"Your function gave {describe(outs[0])}, whose items come only once. Put them "
                    "in a list: `list(...)`."
                )
            if not outs[1:] and not same(to_numpy(before), to_numpy(given), 0):
                raise Trouble(
                    "Your function changes its input, which whoever called it still needs. Make a "
                    "new one (`x = x - 1`, not `x -= 1`), or begin with a copy."
                )
        first, again = (self.canonical(to_numpy(out)) for out in outs)
        if not self.judge and not same(first, again, 0):
            raise Trouble("Two calls with the same input gave two answers. What differs: a "
                          "random number, or something kept from call to call?")  # fmt: skip
        return first

    def _diagnose(self, cases, outs) -> None:
        """Raises the message of the first known mistake that gives the same on every case."""
        for message, mistake in self.mistakes:
            theirs = [self._plain(mistake, args) for args in cases]
            always_raises = all(isinstance(t, Exception) for t in theirs)
            if all(
                alike(t, o, self.tol, by_text=always_raises) or self._both_right(args, t, o)
                for args, t, o in zip(cases, theirs, outs)
            ):
                raise Trouble(message)

    def _both_right(self, args, *outs) -> bool:
        """Whether outputs that need not be equal are right, each in its own way."""
        failed = any(isinstance(out, Exception) for out in outs)
        return not failed and bool(self.judge) and not any(self.judge(out, *args) for out in outs)

    def _show(self, args) -> str:
        names = inspect.signature(self.solve).parameters
        return ", ".join(f"{name} = {show(a)}" for name, a in zip(names, args))


class Choice(Exercise):
    """A question with lettered answers: each wrong letter gets its own explanation."""

    def __init__(self, solve, *, options: dict[str, str], **rest):
        super().__init__(solve, cases=lambda: [()], **rest)
        self.options = options  # letter -> what to say about it, the right one's on passing

    def _check(self, answer) -> Verdict:
        if not is_stub(answer):
            with contextlib.suppress(Exception, TimeUp, SystemExit), time_limit(self.seconds):
                answer = called(answer)
        if answer is ... or is_stub(answer):
            return Verdict(NOT_ATTEMPTED, "Put the letter of your answer in place of `...`.", self)
        letter = answer.strip(" ().").lower() if isinstance(answer, str) else None
        if letter not in self.options:
            letters = ", ".join(self.options)
            return Verdict(
                FAILED, f"Expected one letter of {letters}; got {describe(answer)}.", self
            )
        status = PASSED if letter == self.solve() else FAILED
        return Verdict(status, self.options[letter], self)


def exercise(**settings) -> Callable[[Callable], Exercise]:
    """Makes the solution under it an `Exercise`; with `options=`, a `Choice`."""
    return lambda solve: (Choice if "options" in settings else Exercise)(solve, **settings)


def called(answer):
    """What an answer gives if it is a function, `...` where it is a stub that raises; or itself."""
    try:
        return answer() if callable(answer) else answer
    except NotImplementedError:
        return ...


def is_stub(answer) -> bool:
    """Whether a function does nothing yet: `...`, `pass`, a docstring, or a bare return."""
    if not isinstance(answer, types.FunctionType):
        return False
    idle = {"RESUME", "NOP", "COPY_FREE_VARS", "MAKE_CELL"}
    steps = [step for step in dis.get_instructions(answer) if step.opname not in idle]
    values = [s.argval for s in steps if s.opname in ("LOAD_CONST", "RETURN_CONST")]
    others = {s.opname for s in steps} - {"LOAD_CONST", "RETURN_CONST", "RETURN_VALUE"}
    return not others and len(values) == 1 and values[0] in (None, ...)


def kind_of(function) -> str:
    """Whether a function computes with "torch" or "numpy", by the names that its code mentions."""
    code = getattr(function, "__code__", None)
    if code is None:
        return "torch" if str(getattr(function, "__module__", "")).startswith("torch") else "numpy"
    names = set(code.co_names) | set(code.co_freevars)
    near = {**getattr(function, "__globals__", {}), **inspect.getclosurevars(function).nonlocals}
    uses = {str(getattr(near.get(name), "__name__", name)).split(".")[0] for name in names}
    return "torch" if "torch" in uses and "numpy" not in uses else "numpy"


def kinds_for(answer) -> tuple[str, str]:
    """The kinds of input to try: first what the answer seems to be written for."""
    with contextlib.suppress(Exception):
        if kind_of(answer) == "torch":
            return "torch", "numpy"
    return "numpy", "torch"


def convert(args, kind: str):
    """Fresh copies of a case's arguments, arrays as NumPy arrays or as torch tensors."""
    if isinstance(args, np.ndarray):
        return torch.from_numpy(args.copy()) if kind == "torch" else args.copy()
    if isinstance(args, tuple | list):
        return type(args)(convert(a, kind) for a in args)
    return copy.deepcopy(args)


def to_numpy(out):
    """An output with every tensor in it as a NumPy array."""
    if isinstance(out, torch.Tensor):
        out = out.detach().cpu()
        return out.float().numpy() if out.dtype == torch.bfloat16 else out.numpy()
    if isinstance(out, tuple | list):
        return type(out)([to_numpy(o) for o in out]) if type(out) in (tuple, list) else out
    return out


def alike(theirs, out, tol, by_text: bool) -> bool:
    """Whether a known mistake and an answer end the same way: equal values, or the same error."""
    if isinstance(theirs, Exception) or isinstance(out, Trouble):
        error = getattr(out, "error", None)
        if by_text:
            return type(theirs) is type(error) and str(theirs) == str(error)
        misfit = isinstance(theirs, ValueError | IndexError)  # for which torch has RuntimeError
        return type(theirs) is type(error) or (misfit and isinstance(error, RuntimeError))
    return same(theirs, out, tol)


def safely(holds, *args) -> bool:
    try:
        return bool(holds(*args))
    except Exception:
        return False


def show(value) -> str:
    """A value in a message: whole if small, else its shape and first numbers."""
    if isinstance(value, np.ndarray | torch.Tensor):
        value = np.asarray(value)
        if value.size > 12:
            return describe(value)
        return np.array2string(value, precision=4, separator=", ").replace("\n", " ")
    text = repr(value)
    return text if len(text) <= 200 else text[:197] + "..."


def what_was_raised(error: BaseException, args) -> str:
    """One sentence on an exception: its type, its text, and the line of the answer it came from."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    line = f"\nIt happened at `{frames[0].line}`." if frames and frames[0].line else ""
    given = ", ".join(describe(a) for a in args)
    text = str(error).split("\n")[0][:200]
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"Your function raised {what}{line}\nGiven: {given}."


def source_of(function: Callable) -> str:
    """A function's source without decorators, after the imports and constants that it needs."""
    text = textwrap.dedent(inspect.getsource(function))
    node = ast.parse(text).body[0]
    body = "\n".join(text.splitlines()[node.lineno - 1 : node.end_lineno])
    node.decorator_list = []  # what `@exercise(...)` names is not the reader's concern
    wanted = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    imports = []
    for name in sorted(wanted & function.__globals__.keys()):
        thing = function.__globals__[name]
        if isinstance(thing, types.ModuleType):
            full = thing.__name__
            imports.append(f"import {full}" + ("" if full == name else f" as {name}"))
        elif hasattr(thing, "__module__") and hasattr(thing, "__qualname__"):
            imports.append(f"from {thing.__module__} import {name}")
        else:
            imports.append(f"{name} = {thing!r}")
    return "\n".join(imports) + ("\n\n\n" if imports else "") + body + "\n"
