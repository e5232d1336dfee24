"""Chunks of work on the processes of one machine, or on those of a Dask cluster."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm.auto import tqdm

from i2m_lib.progress import watched

from .source import CorpusError

TIMEOUT = "20s"  # for a Dask scheduler to answer


def run_chunks(work: Callable, chunks: Sequence[Sequence], *, workers: int, scheduler: str, progress: bool) -> None:
    """Calls work(chunk, owner), which returns how many items it finished, for each chunk: on `workers` local processes
    or, where `scheduler` is the address of a Dask scheduler, on all its workers. `owner` is for `orphaned`. Raises what
    `work` raises, and CorpusError if no scheduler answers or a worker was killed."""
    owner, total, done, bars = None if scheduler else os.getpid(), sum(map(len, chunks)), 0, watched()
    jobs = (joblib.delayed(work)(chunk, owner) for chunk in chunks)
    with _cluster(scheduler) if scheduler else nullcontext():
        parallel = joblib.Parallel(n_jobs=-1 if scheduler else workers, return_as="generator_unordered")
        try:
            # A bar where someone watches; in a log, a line per 10 %.
            with tqdm(total=total, unit="model", disable=not (progress and bars)) as bar:
                for n in parallel(jobs):
                    bar.update(n)
                    done += n
                    if progress and not bars and done * 10 // total > (done - n) * 10 // total:
                        print(f"{done} of {total} models", flush=True)
        except TerminatedWorkerError as error:
            why = "A worker was killed, most often because memory ran out"
            cure = "run again, which goes on from here, with fewer workers or a lower max_faces."
            raise CorpusError(f"{why}: {cure}") from error


def orphaned(owner: int | None) -> bool:
    """Whether the local process `owner`, for which this one works, is gone."""
    return owner is not None and owner not in (os.getpid(), os.getppid())


@contextmanager
def _cluster(address: str) -> Iterator[None]:
    """Until the end of the block, joblib works on the cluster."""
    try:
        from distributed import Client

        client = Client(address, timeout=TIMEOUT, set_as_default=False)
    except ImportError as error:
        raise CorpusError("A scheduler needs Dask: pip install 'i2m_lib[cluster]'.") from error
    except (OSError, ValueError, TypeError) as error:
        raise CorpusError(f"No Dask scheduler answers at {address} ({error}): start one, or leave it empty.") from error
    with client, joblib.parallel_config("dask", client=client):
        yield
