"""Build the page "Draw a facade", which runs a generator in the browser, and serve it on this machine.

python examples/draw_a_facade.py                        # the generator that is part of the examples
python examples/draw_a_facade.py --weights NAME         # another one, which takes label maps of facades
python examples/draw_a_facade.py --build-only           # then docs/demo is ready for every server of static files

Needs npm, which fetches ONNX Runtime Web once, and: pip install "imtrans[onnx]"
"""

import argparse
import shutil
import subprocess
import tarfile
import tempfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image

from imtrans import export_onnx, load_pretrained
from imtrans.cli.train.flags import make_parser
from imtrans.cli.train.run import main
from imtrans.data.facades.plan import draw_facade
from imtrans.errors import DataError
from imtrans.files import disk_errors, json_bytes, sha256_of, write_atomic
from imtrans.modes import DETERMINISTIC

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "demo"
WEIGHTS = ROOT / "examples" / "weights" / "facades"
PACKAGE = "onnxruntime-web@1.30.0"
RUNTIMES = {
    "wasm": ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": ("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
}
DIGESTS = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort.webgpu.bundle.min.mjs": "0730816731ce2cdfb06f273da065d4a1c7091eb9d1756a83b2916c8a89d015e2",
    "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}
EXAMPLES = (0, 1, 3, 4, 7, 10)  # indices of facades of seed 1: different families, roofs and ground floors
EXAMPLE_SIZE = 256


def arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--weights", default=str(WEIGHTS), metavar="NAME", help="generator, as for load_pretrained "
        "(examples/weights/facades)"
    )  # fmt: skip
    parser.add_argument("--mode", choices=DETERMINISTIC, help="how normalisation runs (as saved with the generator)")
    parser.add_argument("--out", type=Path, default=PAGE, metavar="DIR", help="folder of the page (docs/demo)")
    parser.add_argument("--build-only", action="store_true", help="do not serve the page")
    parser.add_argument("--port", type=int, default=8000, help="of http://127.0.0.1 (8000)")
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    build(args.weights, args.mode, args.out)
    if not args.build_only:
        serve(args.out, args.port)


def build(weights: str, mode: str | None, out: Path) -> None:
    """Write the page to `out`, with all the files that it needs."""
    generator, folder = load_pretrained(weights), out / "build"
    with disk_errors(DataError, f"{out} cannot be written", "Give another folder with --out."):
        (folder / "examples").mkdir(parents=True, exist_ok=True)
        for source in PAGE.glob("*.*") if out.resolve() != PAGE else ():
            shutil.copy(source, out)
        if any(not (folder / name).is_file() or sha256_of(folder / name) != DIGESTS[name] for name in DIGESTS):
            add_runtime(folder)
        examples = [f"examples/{number}.png" for number, _ in enumerate(EXAMPLES, 1)]
        for name, index in zip(examples, EXAMPLES, strict=True):
            Image.fromarray(draw_facade(1, index, EXAMPLE_SIZE)[1]).save(folder / name)
    export_onnx(generator, folder / "model.onnx", mode=mode)
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    contents = {
        "name": Path(weights).name,
        "model": "model.onnx",
        "bytes": sizes["model.onnx"],
        "runtimes": {
            kind: {"module": module, "binary": binary, "bytes": sizes[binary]}
            for kind, (module, binary) in RUNTIMES.items()
        },
        "examples": examples,
    }
    with disk_errors(DataError, f"{out} cannot be written", "Give another folder with --out."):
        write_atomic(folder / "build.json", json_bytes(contents))
    print(f"page       {out}, with a model of {sizes['model.onnx'] / 1e6:.1f} MB")


def add_runtime(folder: Path) -> None:
    """Fetch ONNX Runtime Web with npm, and copy the files that the page needs."""
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("the page needs npm, which fetches ONNX Runtime Web. Install Node.js, which has npm.")
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", PACKAGE, "--prefer-offline", "--pack-destination", temporary]
        done = subprocess.run(command, cwd=temporary, capture_output=True, text=True, check=False)
        archives = list(Path(temporary).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it wrote no archive"]
            raise DataError(f"npm cannot fetch {PACKAGE}: {lines[0]}. Try again with a connection to npm's registry.")
        with tarfile.open(archives[0]) as archive:
            for name, digest in DIGESTS.items():
                member = archive.extractfile(f"package/dist/{name}")
                write_atomic(folder / name, member.read() if member else b"")
                if sha256_of(folder / name) != digest:
                    raise DataError(f"{name} of {PACKAGE} has another SHA-256 than {digest}. It may be manipulated.")


class Handler(SimpleHTTPRequestHandler):
    """Static files, with the types that browsers insist on: some systems know other ones."""

    extensions_map = {  # noqa: RUF012  # as in the base class
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, *_: object) -> None:
        pass


def serve(folder: Path, port: int) -> None:
    """Serve the page until the user interrupts."""
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=str(folder)))
    except (OSError, OverflowError) as error:
        raise DataError(f"port {port} cannot be used: {error}. Choose another one with --port.") from error
    with server:
        print(f"open       http://127.0.0.1:{server.server_port} (Ctrl+C ends)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    raise SystemExit(main(run, arguments()))
