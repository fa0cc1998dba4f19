"""Send a DICOM folder to Orthanc by C-STORE, fetch it by DICOMweb, and write what came back into another folder.

To be run inside ``unshare -n``: Orthanc listens on every interface whatever its settings say, and there only the loopback exists.
"""

import email
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

HTTP, DICOM = 8042, 4242
WEB = f"http://127.0.0.1:{HTTP}/dicom-web"


def start(folder: Path, plugin: str) -> subprocess.Popen:
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [plugin],
        "HttpPort": HTTP,
        "DicomPort": DICOM,
        "DicomAlwaysAllowStore": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("w") as log:
        return subprocess.Popen(["Orthanc", folder / "orthanc.json"], stdout=log, stderr=log)


def get(url: str, accept: str) -> tuple[bytes, str]:
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read(), answer.headers["Content-Type"]


def wait_until_up(deadline: float) -> None:
    while True:
        try:
            get(f"{WEB}/studies", "application/dicom+json")
            return
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def fetch(out: Path) -> None:
    (series,) = json.loads(get(f"{WEB}/series", "application/dicom+json")[0])
    study, uid = (series[tag]["Value"][0] for tag in ("0020000D", "0020000E"))
    body, kind = get(f"{WEB}/studies/{study}/series/{uid}", 'multipart/related; type="application/dicom"')
    message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    for k, part in enumerate(message.get_payload()):
        (out / f"{k}.dcm").write_bytes(part.get_payload(decode=True))


def main() -> None:
    source, out, work = (Path(word) for word in sys.argv[1:4])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    server = start(work, sys.argv[4])
    try:
        wait_until_up(time.monotonic() + 60)
        subprocess.run(["storescu", "+sd", "127.0.0.1", str(DICOM), source], check=True)
        fetch(out)
    finally:
        server.terminate()
        server.wait(30)


if __name__ == "__main__":
    main()
