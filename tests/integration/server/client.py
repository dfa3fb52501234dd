"""llama-server as a client sees it: started, asked over HTTP, watched and stopped. Python's standard library only."""

import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import time


class ServerError(Exception):
    """The server ended, refused or could not be reached; the text says what and where its log is."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end_with_parent():
    """In the child: a test that is killed leaves no server behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Server:
    """One llama-server process. A context manager: it is stopped at the end, whatever happened.

    program   path of llama-server
    model     path of a GGUF file
    log       where its output goes
    plugin    path of the plug-in, or None for llama.cpp alone
    options   further options of llama-server
    settings  environment of the plug-in (ZEROMERGE_POLICY, ZEROMERGE_RECLAIM)
    preload   libraries to preload; the tap, which tells the statistics, among them
    """

    def __init__(self, program, model, log, plugin=None, options=(), settings=None, preload=()):
        self.log = log
        self.port = free_port()
        self.folder = tempfile.TemporaryDirectory(prefix="zeromerge-server-")
        self.tap = os.path.join(self.folder.name, "tap")
        command = [program, "-m", model, "--host", "127.0.0.1", "--port", str(self.port),
                   "--slot-save-path", self.folder.name, *options]
        environment = {**os.environ, "ZEROMERGE_TAP": self.tap, **(settings or {})}
        if preload:
            environment["LD_PRELOAD"] = ":".join(preload)
        if plugin:
            # A build with linked backends reads GGML_BACKEND_PATH only when devices are asked for.
            command += ["-fa", "on", "-ot", "nothing=CPU"]
            environment["GGML_BACKEND_PATH"] = plugin
        self.command = command
        self.environment = environment

    def __enter__(self):
        self.output = open(self.log, "wb")
        self.process = subprocess.Popen(self.command, env=self.environment, stdout=self.output,
                                        stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                        preexec_fn=end_with_parent)
        try:
            self.wait_until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.output.close()
        self.folder.cleanup()

    def stop(self):
        """Ends it in good order and returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def wait_until_ready(self, seconds=120):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if self.request("GET", "/health")[0] == 200:
                    return
            except OSError:
                pass
            if self.process.poll() is not None:
                raise ServerError(f"llama-server ended with status {self.process.returncode} before it was ready; "
                                  f"the end of {self.log}:\n{self.log_tail()}")
            time.sleep(0.05)
        raise ServerError(f"llama-server was not ready after {seconds} s; its log: {self.log}")

    def log_text(self):
        with open(self.log, "rb") as file:
            return file.read().decode(errors="replace")

    def log_tail(self, lines=15):
        return "\n".join(self.log_text().splitlines()[-lines:])

    # ---- requests

    def request(self, method, path, body=None, timeout=600):
        """(status, parsed answer)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body),
                               {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text else None
        except (http.client.HTTPException, ConnectionError) as error:
            if path == "/health":
                raise OSError(str(error)) from error
            raise ServerError(f"{method} {path}: {error!r}; the end of {self.log}:\n{self.log_tail()}") from error
        finally:
            connection.close()

    def post(self, path, body=None):
        """The answer, or a ServerError with the status that is not 200 and what the server said."""
        status, answer = self.request("POST", path, body or {})
        if status != 200:
            raise ServerError(f"HTTP {status} from POST {path}: {json.dumps(answer)[:300]}")
        return answer

    def tokens(self, text):
        return self.post("/tokenize", {"content": text, "parse_special": True})["tokens"]

    def complete(self, prompt, predict, **more):
        return self.post("/completion", completion(prompt, predict, **more))

    def cancel_after(self, tokens, prompt, predict, **more):
        """Reads so many tokens of a streamed answer, then closes the connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        connection.request("POST", "/completion", json.dumps(completion(prompt, predict, stream=True, **more)),
                           {"Content-Type": "application/json"})
        if tokens:
            response = connection.getresponse()
            if response.status != 200:
                raise ServerError(f"HTTP {response.status} from a streamed answer: {response.read(300)!r}")
            seen = 0
            while seen < tokens:
                line = response.readline()
                if not line:
                    raise ServerError(f"a streamed answer ended after {seen} tokens")
                seen += line.startswith(b"data:")
            # The response holds the socket: both have to go.
            response.close()
        connection.close()

    def wait_until_idle(self, seconds=60):
        """A slot whose answer was broken off is busy for a moment; meanwhile its conversation would get another one."""
        end = time.monotonic() + seconds
        while any(slot["is_processing"] for slot in self.request("GET", "/slots")[1]):
            if time.monotonic() > end:
                raise ServerError(f"a slot is still busy after {seconds} s; its log: {self.log}")
            time.sleep(0.02)

    def slot(self, action, slot, file="slot.bin"):
        return self.post(f"/slots/{slot}?action={action}", {"filename": file})

    def statistics(self):
        """The plug-in's, as a dict; {"loaded": False} without it."""
        with socket.socket(socket.AF_UNIX) as tap:
            tap.connect(self.tap)
            with tap.makefile() as file:
                return json.loads(file.read())

    def memory(self):
        """Resident bytes, now and at most."""
        found = {}
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name in ("VmRSS", "VmHWM"):
                    found[name] = int(value.split()[0]) * 1024
        return found["VmRSS"], found["VmHWM"]


def completion(prompt, predict, **more):
    """The body of a greedy request; `prompt` is text or tokens."""
    return {"prompt": prompt, "n_predict": predict, "temperature": 0, "ignore_eos": True, "return_tokens": True, **more}
