"""Number of pixels that each true segment shares with each predicted one, from runs, as machine code. Needs numba."""

from __future__ import annotations

import numpy as np

from vertebra_eval.panoptic.machine_code import machine_code

__all__ = ["paired_rows"]

_MOST_SEGMENTS = 300  # in one image; with more the tables grow large, and pairs are counted the other way


def paired_rows(
    true_runs: tuple[np.ndarray, np.ndarray],
    true_ids: np.ndarray,
    pred_runs: tuple[np.ndarray, np.ndarray],
    pred_ids: np.ndarray,
    num_pixels: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """(row in true_ids, row in pred_ids, pixels) of each combination that occurs, by ascending ids; rows of -1: void.

    Args:
        true_runs, pred_runs: first pixel and segment id of each run, (R,) int64 each.
        true_ids, pred_ids: (T,) and (P,) int64 segment ids, each once, above 0.
    Returns:
        Three int64 arrays; None where a run has an unknown id, or there are very many segments.
    """
    if max(len(true_ids), len(pred_ids)) > _MOST_SEGMENTS:
        return None
    true_order, pred_order = np.argsort(true_ids), np.argsort(pred_ids)
    table = _count(*true_runs, true_ids[true_order], *pred_runs, pred_ids[pred_order], num_pixels)
    if table is None:
        return None
    t, p = np.nonzero(table)
    pixels = table[t, p]
    rows_of_true, rows_of_pred = (np.concatenate(([-1], order)) for order in (true_order, pred_order))
    return rows_of_true[t], rows_of_pred[p], pixels


@machine_code
def _count(  # pragma: no cover - runs as machine code
    true_starts: np.ndarray,
    true_run_ids: np.ndarray,
    true_ids: np.ndarray,
    pred_starts: np.ndarray,
    pred_run_ids: np.ndarray,
    pred_ids: np.ndarray,
    num_pixels: int,
) -> np.ndarray | None:
    """(1 + T, 1 + P) int64 pixels, the first row and column for void; None if a run's id is unknown."""
    table = np.zeros((len(true_ids) + 1, len(pred_ids) + 1), np.int64)
    true_rows, true_ends = _rows_and_ends(true_starts, true_run_ids, true_ids, num_pixels)
    pred_rows, pred_ends = _rows_and_ends(pred_starts, pred_run_ids, pred_ids, num_pixels)
    if true_rows.min() < 0 or pred_rows.min() < 0:
        return None
    i = j = np.int64(0)
    at = 0
    while at < num_pixels:  # which of the two runs ends first is anybody's guess: no branch depends on it
        end = min(true_ends[i], pred_ends[j])
        table[true_rows[i], pred_rows[j]] += end - at
        at = end
        i += np.int64(true_ends[i] == at)
        j += np.int64(pred_ends[j] == at)
    return table


@machine_code
def _rows_and_ends(  # pragma: no cover - runs as machine code
    starts: np.ndarray, run_ids: np.ndarray, ids: np.ndarray, num_pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of each run: the row in the table (0: void, -1: unknown), and the pixel behind its last."""
    keys, numbers, factor = _places(ids)
    rows, ends = np.empty(len(starts), np.int64), np.empty(len(starts), np.int64)
    for i in range(len(starts)):
        place = (run_ids[i] * factor >> 16) & (len(keys) - 1)
        rows[i] = numbers[place] if keys[place] == run_ids[i] else -1
    ends[:-1] = starts[1:]
    ends[-1] = num_pixels
    return rows, ends


@machine_code
def _places(  # pragma: no cover - runs as machine code
    ids: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.int64]:
    """A table without collisions to look ids up in: keys, the number of each from 1 on (void: 0), and the factor.

    One look answers, and no guess of the processor fails. With half as many places as pairs of ids, about one factor in
    seven serves; the table doubles where many do not.
    """
    size = 16
    while 2 * size < (len(ids) + 1) ** 2:
        size *= 2
    factor = np.int64(0x9E3779B1)  # 2^32 over the golden ratio spreads well (Knuth, volume 3, section 6.4)
    trial = 0
    while True:
        trial += 1
        if trial % 64 == 0:
            size *= 2
        factor = (factor * 1103515245 + 12345) & 0x7FFFFFFF | 1
        keys, numbers = np.full(size, -1, np.int64), np.zeros(size, np.int64)
        keys[0] = 0
        met = False
        for number in range(len(ids)):
            place = (ids[number] * factor >> 16) & (size - 1)
            met = keys[place] != -1
            if met:
                break
            keys[place], numbers[place] = ids[number], number + 1
        if not met:
            return keys, numbers, factor
