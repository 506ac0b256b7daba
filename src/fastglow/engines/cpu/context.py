"""The table of numbers and addresses through which Python and the machine code talk.

Layouts, all float32. A *plane* is [rows, pitch]: frames along the pitch, each row with
``guard`` zeros before and after, so that a shifted tap is a plain unaligned load.
Weights of a product are [groups, K, rows]: a group of output rows, contiguous for each k.
"""

from __future__ import annotations

from enum import IntEnum, auto


class _Index(IntEnum):
    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[int]) -> int:
        return count


class Job(_Index):
    """One flow over a run of frames: numbers, then addresses."""

    PHASES = auto()  # P
    CHUNKS = auto()  # tasks a phase
    CHUNK = auto()  # blocks a task
    PITCH = auto()
    GUARD = auto()
    CHANNELS = auto()  # C, padded to a whole group
    LAYERS = auto()
    GIVEN_ROWS = auto()  # h
    AUDIO_ROWS = auto()  # n
    GROUP_ROWS = auto()  # n_group
    GIVEN_AT = auto()  # first audio row that conditions the coupling
    CHANGED_AT = auto()  # first audio row that the coupling changes
    FLOW_AT = auto()  # first audio row of this flow
    AUDIO_PITCH = auto()  # of the whole utterance's audio planes
    AUDIO_FRAME = auto()  # where frame 0 is in them, guard included
    MEL_ROWS = auto()  # M, or M*G in the published form
    MEL_TAPS = auto()  # J, or 1
    MEL_PITCH = auto()
    MEL_FRAME = auto()  # where frame 0 is in a mel row, guard included
    MEL_PHASE = auto()  # floats from one phase's conditioning input to the next (0: shared)
    MEL = auto()
    MASK = auto()  # [pitch of the audio], 1 inside utterances
    AUDIO_IN = auto()  # [P, n_group, audio pitch]
    AUDIO_OUT = auto()
    OUTPUT_ROWS = auto()  # n, padded to a whole group
    ZEROS = auto()  # at least a block of zeros
    LAYER_TABLE = auto()  # [L, len(Layer)]
    STAGE_TABLE = auto()  # [L + 1, len(Stage)]
    INVERSE = auto()  # [n, n]
    COUNTERS = auto()  # [stages, 16]: tasks claimed at 0, done at 8
    YIELD = auto()  # a function that lets another thread run


class Stage(_Index):
    """What a layer, or at last the coupling, computes of a run, from what and to where."""

    FIRST = auto()  # first frame
    LAST = auto()  # one past the last
    INPUT = auto()  # [P, C, pitch], the residual stream; layer 0 reads the audio
    RESULT = auto()  # [P, C, pitch], the next one
    SUMS = auto()  # [P, n padded, pitch], the output rows so far
    OUTPUT = auto()  # [P, n padded, pitch], with this layer's share; may be the same


class Layer(_Index):
    """Weights of one layer."""

    TAPS = auto()  # [groups, kernel * inputs, rows]
    MEL = auto()  # [P or 1, groups, J*M, rows]
    MEL_PHASE = auto()  # floats from one phase's matrix to the next
    GATE_BIAS = auto()  # [groups, rows]
    RESIDUAL = auto()  # [groups, C, rows]
    RESIDUAL_BIAS = auto()
    START = auto()  # [groups, h, rows], layer 0 alone
    OUTPUT = auto()  # [groups, C, rows]
    OUTPUT_BIAS = auto()
