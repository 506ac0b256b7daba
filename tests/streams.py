"""What the tests of streams share."""

from __future__ import annotations

import numpy as np

from fastglow.plan.evaluate import _conditioning_input, _flow


def cut(mel, sizes):
    """The mel in chunks of these sizes, over and over."""
    at, index = 0, 0
    while at < mel.shape[1]:
        size = sizes[index % len(sizes)]
        yield mel[:, at : at + size]
        at, index = at + size, index + 1


def recomputed(plan, mel, sizes, lookahead, noise):
    """The audio by definition, in float64: at each push every flow makes all of its input anew, as
    if the utterance ended with what has come, and gives what is then far enough behind."""
    config, count = plan.config, plan.config.n_flows
    share, rest = divmod(lookahead, count)
    delays = [share + (k < rest) for k in range(count)]
    phases = config.phases
    latent = noise.reshape(-1, config.n_group).T
    inputs = [np.zeros((config.n_group, 0)) for _ in range(count + 1)]
    bounds = np.minimum(np.cumsum([0, *sizes]), mel.shape[1])
    for end in [*bounds[1:], None]:  # None: nothing more will come
        last = mel.shape[1] if end is None else end
        inputs[0] = latent[:, : last * phases]
        for k, delay in enumerate(delays):
            x = inputs[k].copy()
            flow = plan.flow(count - 1 - k)
            if not x.shape[1]:
                continue
            columns = _conditioning_input(plan, mel[:, : x.shape[1] // phases])
            x[-flow.channels :] = _flow(flow, x[-flow.channels :], columns)
            given = x.shape[1] if end is None else max(0, x.shape[1] - delay * phases)
            before = inputs[k + 1].shape[1]
            inputs[k + 1] = np.concatenate([inputs[k + 1], x[:, before:given]], axis=1)
    return inputs[-1].T.reshape(-1)
