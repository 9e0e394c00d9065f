"""A camera that sends RTP over UDP alone, by GStreamer. Runs under the system's Python, which has GStreamer's bindings.

    python3 gst_rtsp_server.py [PORT]

Prints the port that it listens on, on loopback, and serves ``/camera`` until it is killed.
"""

from __future__ import annotations

import sys

PICTURES = (
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,width=160,height=120,framerate=10/1"
    " ! openh264enc gop-size=10 ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=1 )"
)


def serve(port: str) -> None:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtsp", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtsp, GstRtspServer

    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(PICTURES)
    factory.set_protocols(GstRtsp.RTSPLowerTrans.UDP)
    factory.set_shared(True)
    server.get_mount_points().add_factory("/camera", factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    serve(sys.argv[1] if len(sys.argv) > 1 else "0")
