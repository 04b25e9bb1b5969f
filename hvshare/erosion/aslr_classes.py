"""Contents that explained pairs make one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def join_classes(
    classes: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Join the classes of the members of pairs.

    Parameters
    ----------
    classes : ndarray of int64, shape (n,)
        The class of each member, named by the number of its lowest member.
    first, second : ndarray of int64, shape (pairs,)
        Members that belong together.

    Returns
    -------
    ndarray of int64, shape (n,)
        The classes after that, named in the same way.

    Examples
    --------
    >>> join_classes(np.arange(5), np.array([3, 4]), np.array([1, 3])).tolist()
    [0, 1, 2, 1, 1]
    """
    lowest = classes.copy()
    while True:
        one, other = lowest[first], lowest[second]
        apart = one != other
        if not apart.any():
            return lowest
        np.minimum.at(lowest, np.maximum(one, other)[apart], np.minimum(one, other)[apart])
        while ((shorter := lowest[lowest]) != lowest).any():
            lowest = shorter


def in_company(classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which members are in a class with others."""
    size = np.bincount(classes, minlength=len(classes))
    together: NDArray[np.bool_] = size[classes] > 1
    return together
