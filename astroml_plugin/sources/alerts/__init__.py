"""Alert packets: Avro files, messages, archives and tables that hold alerts with their pictures."""

from astroml_plugin.sources.alerts.packets import Packet, Reading, is_packets, packets, records

__all__ = ["Packet", "Reading", "is_packets", "packets", "records"]
