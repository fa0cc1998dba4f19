#!/usr/bin/env bash
# The programs that the integration suite checks against: Debian's packages, or Ubuntu's. Run it as root.
set -euo pipefail

apt-get update
apt-get install --yes --no-install-recommends \
    dicom3tools `# dciodvfy, dcentvfy: whether objects are what the standard says` \
    dcmtk `# storescu, storescp: sending and receiving` \
    dcm2niix \
    plastimatch \
    orthanc orthanc-dicomweb \
    chromium `# a report, as a browser shows it; steered by the package playwright` \
    iproute2 util-linux `# ip, unshare: a network of their own for the servers`
