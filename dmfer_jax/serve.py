"""Serves a web page that tells the expressions of the faces in a photo, and an endpoint beside it.

  python -m dmfer_jax.serve
  python -m dmfer_jax.serve --model=model.safetensors --port=8080

Open the address that it prints. It listens on this machine alone unless --host says otherwise,
loads nothing from elsewhere, and keeps nothing of the photos. docs/serve.md tells of its limits, of
the endpoint, and of a proxy before it. Ctrl-C ends it.
"""

import dataclasses
import ipaddress
import re
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from dmfer_jax import command, loading
from dmfer_jax.errors import UserError
from dmfer_jax.expression_model import ExpressionModel
from dmfer_jax.predictor import Predictor
from dmfer_jax.reporting.plain_json import to_plain

_CONNECTIONS = 256  # at once, of all clients; the next ones are told to come back


def main(argv: Sequence[str]) -> None:
    """Serves until it is interrupted."""
    del argv
    options = flags.FLAGS
    uvicorn = _import_uvicorn()
    path = loading.find_model(options.model)
    check_addresses(options.names, options.proxy)
    listening = bind(options.host, options.port)
    _warn_of_strangers(options.host)
    print("getting ready ...", file=sys.stderr)
    app, counts = make(path, names=options.names)
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        # Unless there is a proxy, this header is whatever a client likes its address to be.
        proxy_headers=bool(options.proxy),
        forwarded_allow_ips=options.proxy,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    # The server has handlers of its own while it runs, and afterwards raises the signal again.
    signal.signal(signal.SIGTERM, lambda *_: setattr(server, "should_exit", True))
    listening.listen()  # whoever reads the next line may come at once
    print(f"serving {path.stem} at {_address(listening)} (Ctrl-C ends it)", flush=True)
    try:
        server.run([listening])
    finally:
        told = ", ".join(f"{name} {value:,}" for name, value in dataclasses.asdict(counts).items())
        print(told, file=sys.stderr)


def check_addresses(names: Sequence[str], proxy: str | None) -> None:
    """Refuses what no request could ever match.

    Args:
      names: of `--names`.
      proxy: of `--proxy`, addresses with commas between; "*" is any.

    Raises:
      UserError: a name is no host's name, or the proxy's address none.
    """
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
            raise UserError(
                f"--names has {name!r}; expected names as faces.example.org, without https:// and "
                "port"
            )
    for address in proxy.split(",") if proxy and proxy != "*" else ():
        try:
            ipaddress.ip_network(address.strip(), strict=False)
        except ValueError:
            raise UserError(
                f"--proxy has {address!r}; expected its IP address, such as 127.0.0.1"
            ) from None


def make(path: Path, *, names: Sequence[str] = ()) -> tuple[Any, Any]:
    """Returns the application of a model, ready to answer at once, and what it counts in.

    Args:
      path: of the model.
      names: by which browsers reach it, beside localhost and IP addresses.

    Raises:
      UserError: the model or its card cannot be used.
    """
    from dmfer_jax.serving import model_card
    from dmfer_jax.serving.app import make_app
    from dmfer_jax.serving.gate import Counts
    from dmfer_jax.serving.limits import Limits
    from dmfer_jax.serving.service import Network, PhotoService

    limits, counts = Limits(), Counts()
    manifest, variables = loading.load_weights(path)
    network = Network(loading.make_network(manifest), variables)
    image = (manifest.image_size, manifest.channels)
    # A photo has few faces, a group a dozen; 64 at once would be compiled for nobody.
    predictor = Predictor(*network, *image, manifest.labels, buckets=(1, 8))
    service = PhotoService(ExpressionModel(predictor), network, limits)
    predictor.warm_up()
    service.warm_up()
    described = {"name": path.stem, **to_plain(dataclasses.asdict(manifest))}
    card = model_card.read_card(path, path.stem, described)
    return make_app(service, described, card, limits=limits, names=names, counts=counts), counts


def bind(host: str, port: int) -> socket.socket:
    """Returns a socket at an address, which nobody is let in by yet.

    Raises:
      UserError: there is no such address here, or it is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(host, port, error) from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise _cannot_listen(host, port, error) from None
    return listening


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _cannot_listen(host: str, port: int, error: OSError | UnicodeError) -> UserError:
    # The second is of a name that has an empty part, or one that is too long.
    reason = error.strerror if isinstance(error, OSError) else "no host has such a name"
    return UserError(
        f"cannot listen at {host}, port {port}: {reason}; give another --port, or --host with an "
        "address of this machine"
    )


def _warn_of_strangers(host: str) -> None:
    if not is_loopback(host):
        print(
            f"warning: at {host} others can reach this server. It asks nobody for a password, and "
            "photos travel to it unencrypted; put a proxy before it that does both "
            "(docs/serve.md), or leave --host out",
            file=sys.stderr,
        )


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{shown}]:{port}/" if ":" in str(shown) else f"http://{shown}:{port}/"


def _import_uvicorn() -> Any:
    """Returns the module, once all that the page needs is known to be there."""
    try:
        import markdown_it  # noqa: F401
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise UserError(
            f"the page needs {error.name}, which is not installed; install it with "
            "pip install 'dmfer-jax[serve]'"
        ) from None
    return uvicorn


if __name__ == "__main__":
    flags.DEFINE_string(
        "model",
        loading.DEFAULT_MODEL,
        "A model of this package, or a file of weights (.safetensors, .npz).",
    )
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen at; this machine's own unless set.")
    flags.DEFINE_integer(
        "port",
        8000,
        "Port to listen at; 0 takes a free one.",
        lower_bound=0,
        upper_bound=2**16 - 1,
    )
    flags.DEFINE_list(
        "names", [], "Names by which browsers reach it, beside localhost and IP addresses."
    )
    flags.DEFINE_string(
        "proxy", None, "Address of a proxy before it, whose X-Forwarded-For is believed."
    )
    command.run(main)
