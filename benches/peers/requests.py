"""What a script on a box would use: Python requests, json= and base64.b64encode on a Session. A peer of scripts/bench.

    requests.py URL CA_FILE    sends an event for each line "REG_PIC SPOT_PIC" of its input
    requests.py --version
"""

import base64
import platform
import sys

# This file is named like the library, and its folder is first in the path.
sys.path.pop(0)
import requests


def picture(path):
    with open(path, "rb") as file:
        return base64.b64encode(file.read()).decode()


def main():
    if sys.argv[1] == "--version":
        print(f"requests {requests.__version__}, Python {platform.python_version()}")
        return
    url, ca_file = sys.argv[1:]
    session = requests.Session()
    for line in sys.stdin:
        reg_pic, spot_pic = line.split()
        event = {
            "identity_id": "100001",
            "identity_name": "Ada Lovelace",
            "group_name": "staff",
            "reg_pic": picture(reg_pic),
            "timestamp": 1700000000,
            "score": 0.9,
            "ext_data": {
                "device_ip": "192.168.1.30",
                "person_type": 1,
                "device_type": "1",
                "spot_pic": picture(spot_pic),
            },
        }
        session.post(url, json=event, timeout=10, verify=ca_file).raise_for_status()


main()
