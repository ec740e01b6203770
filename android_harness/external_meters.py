"""Bench power meters with packages of their own: Monsoon, Joulescope, Nordic PPK2.

They measure whatever is wired to them, which need not be the machine that runs the inferences: one is used
only when it is named (``--power-meter joulescope``). None of them has its output voltage changed. Written
after the packages' sources (Monsoon 0.1.88, joulescope 1.5.0, ppk2-api 0.9.2) and tested against modules that
imitate them; they have met no hardware.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..errors import EdgeoptError, InputError
from .power import Channel, PowerMeter

_SCOPE = "whatever is wired to the meter"
_FIRST_READING_S = 15.0  # a Monsoon calibrates itself for some seconds first


def external_meters() -> list[PowerMeter]:
    """A meter for each bench instrument that is plugged in and whose package is installed."""
    found: list[PowerMeter] = []
    for find in (Monsoon.find, Joulescope.find, Ppk2.find):
        # A driver that fails while it searches means no meter, not the end of a measurement by another one.
        with contextlib.suppress(Exception):
            found += find()
    return found


class Streamed(ABC):
    """Collects mean power in a thread of its own and integrates it to joules.

    Each chunk counts for the whole time since the last one: samples that the USB link drops don't lower the
    energy.
    """

    external = True
    name = ""
    channels: tuple[Channel, ...] = ()

    def __init__(self) -> None:
        self._joules = 0.0
        self._failure: str | None = None
        self._thread: threading.Thread | None = None
        self._first = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.Lock()

    @abstractmethod
    def start(self) -> None:
        """Open the instrument so that :meth:`watts` can be called."""

    @abstractmethod
    def watts(self) -> float | None:
        """Mean power since the last call in W; None while there is nothing new. Blocks a little."""

    @abstractmethod
    def stop(self) -> None:
        """Let go of the instrument."""

    def problem(self) -> str | None:
        if self._thread is None:
            try:
                self.start()
            except InputError as error:
                return str(error)
            except Exception as error:  # the drivers' exceptions share no base class
                return f"can't be opened ({error})"
            self._thread = threading.Thread(target=self._loop, daemon=True)
            self._thread.start()
            atexit.register(self.close)
        if not self._first.wait(_FIRST_READING_S):
            return f"gave no reading in {_FIRST_READING_S:g} s"
        return self._failure

    def read(self) -> float:
        problem = self.problem()
        if problem:
            raise EdgeoptError(f"the power meter {self.name} {problem}.")
        with self._lock:
            return self._joules

    def close(self) -> None:
        """End the thread and let go of the instrument; may be called twice."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stop.set()
            thread.join(timeout=5)
            with contextlib.suppress(Exception):
                self.stop()

    def _loop(self) -> None:
        last = time.perf_counter()
        while not self._stop.is_set():
            try:
                power = self.watts()
            except Exception as error:  # unplugged
                self._failure = f"can't be read any more ({error})"
                self._first.set()
                return
            if power is None:
                time.sleep(0.002)
                continue
            now = time.perf_counter()
            with self._lock:
                self._joules += power * (now - last)
            last = now
            self._first.set()


class Monsoon(Streamed):
    """Monsoon High Voltage Power Monitor, main channel; its output must be on already."""

    name = "monsoon"
    channels: tuple[Channel, ...] = (
        Channel(
            "main", "J", 5000.0, "±1% of the current by its maker's data sheet (not checked here)", _SCOPE
        ),
    )
    _CHUNK = 250  # samples: 50 ms

    def __init__(self, monitor: Any) -> None:
        super().__init__()
        self._monitor = monitor
        self._engine: Any = None

    @classmethod
    def find(cls) -> list[PowerMeter]:
        """The first monitor on USB, when the package Monsoon is installed."""
        if find_spec("Monsoon") is None:
            return []
        monitor = _quietly(lambda: import_module("Monsoon.HVPM").Monsoon())
        _quietly(monitor.setup_usb)  # prints that there is none, and returns
        return [cls(monitor)] if getattr(monitor.Protocol, "DEVICE", None) is not None else []

    def start(self) -> None:
        self._monitor.fillStatusPacket()  # the scales of the raw readings
        self._engine = import_module("Monsoon.sampleEngine").SampleEngine(self._monitor)
        self._engine.ConsoleOutput(False)
        if _quietly(self._engine.periodicStartSampling) is False:
            raise InputError("did not start sampling: is its output voltage on?")

    def watts(self) -> float | None:
        samples = self._engine.periodicCollectSamples(self._CHUNK)
        channels = import_module("Monsoon.sampleEngine").channels
        milliamperes, volts = samples[channels.MainCurrent], samples[channels.MainVoltage]
        length = min(len(milliamperes), len(volts))
        if not length:
            return None
        return float(np.mean(np.multiply(milliamperes[:length], volts[:length]))) / 1e3

    def stop(self) -> None:
        _quietly(self._engine.periodicStopSampling)
        self._monitor.closeDevice()


class Joulescope(Streamed):
    """Joulescope JS110 or JS220."""

    name = "joulescope"
    _CHUNK_S = 0.05

    def __init__(self, device: Any) -> None:
        super().__init__()
        self._device = device
        accuracy = "as its data sheet states for the current range in use"
        rate = float(getattr(device, "output_sampling_frequency", 0) or 1e6)
        self.channels = (Channel(str(device), "J", rate, accuracy, _SCOPE),)

    @classmethod
    def find(cls) -> list[PowerMeter]:
        """The only device on USB, when the package joulescope is installed; several can't be told apart."""
        if find_spec("joulescope") is None:
            return []
        devices = import_module("joulescope").scan(config="auto")
        return [cls(devices[0])] if len(devices) == 1 else []

    def start(self) -> None:
        self._device.open()

    def watts(self) -> float | None:
        data = np.asarray(self._device.read(contiguous_duration=self._CHUNK_S), dtype=np.float64)
        products = data[:, 0] * data[:, 1]  # amperes, volts; NaN where samples were lost
        products = products[np.isfinite(products)]
        return float(products.mean()) if len(products) else None

    def stop(self) -> None:
        self._device.close()


class Ppk2(Streamed):
    """Nordic Power Profiler Kit II as an ampere meter: the device has its own supply of a known voltage.

    It measures current alone; the voltage is told with the name: ``--power-meter ppk2@3300`` (mV).
    """

    name = "ppk2"
    channels: tuple[Channel, ...] = (
        Channel(
            "supply", "J", 100_000.0, "better than ±20% by its maker (not checked here); current only", _SCOPE
        ),
    )

    def __init__(self, port: str) -> None:
        super().__init__()
        self._port = port
        self._millivolts: int | None = None
        self._kit: Any = None

    @classmethod
    def find(cls) -> list[PowerMeter]:
        """The only kit on USB, when the package ppk2-api is installed."""
        if find_spec("ppk2_api") is None:
            return []
        devices = import_module("ppk2_api.ppk2_api").PPK2_API.list_devices()
        # Versions after 0.9 list (port, serial number).
        ports = [d if isinstance(d, str) else d[0] for d in devices]
        return [cls(ports[0])] if len(ports) == 1 else []

    def configure(self, text: str) -> None:
        """Take the supply's voltage in mV.

        Raises:
            InputError: not a voltage the kit takes.
        """
        if not text.isdigit() or not 800 <= int(text) <= 5000:
            raise InputError(f"--power-meter ppk2@MILLIVOLTS takes 800 to 5000, not {text!r}.")
        self._millivolts = int(text)

    def start(self) -> None:
        if self._millivolts is None:
            raise InputError("needs the supply's voltage in mV: --power-meter ppk2@3300")
        self._kit = import_module("ppk2_api.ppk2_api").PPK2_API(self._port)
        if not self._kit.get_modifiers():
            raise InputError("did not send its calibration: unplug it and try again")
        self._kit.use_ampere_meter()
        # In ampere mode the kit supplies nothing: the voltage only corrects its readings.
        self._kit.set_source_voltage(self._millivolts)
        self._kit.toggle_DUT_power("ON")  # closes the path of the current
        self._kit.start_measuring()

    def watts(self) -> float | None:
        data = self._kit.get_data()
        if not data:
            return None
        found = self._kit.get_samples(data)
        microamperes = found[0] if isinstance(found, tuple) else found
        assert self._millivolts is not None
        return float(np.mean(microamperes)) * self._millivolts / 1e9 if len(microamperes) else None

    def stop(self) -> None:
        self._kit.stop_measuring()


def _quietly(call: Callable[[], Any]) -> Any:
    """Keep what a driver prints off stdout. Not for the collecting thread: stdout is the whole process's."""
    with contextlib.redirect_stdout(io.StringIO()):
        return call()
