"""NVIDIA's cuda.core: memory resources, streams, a graph that is captured. The argument is the cap."""

import sys

from cuda.core import Device, EventOptions, LaunchConfig, ObjectCode, launch

CAP = int(sys.argv[1])
MIB = 1 << 20
PTX = b""".version 8.0
.target sm_90
.address_size 64
.visible .entry kernel() { ret; }
"""

device = Device(0)
device.set_current()
print("capability", device.compute_capability)
stream = device.create_stream()
kernel = ObjectCode.from_ptx(PTX).get_kernel("kernel")
config = LaunchConfig(grid=1, block=32)
launch(stream, config, kernel)
stream.sync()
builder = device.create_graph_builder().begin_building()
launch(builder, config, kernel)
graph = builder.end_building().complete()
for _ in range(3):
    graph.launch(stream)
stream.sync()
print("launched")
try:
    device.allocate(CAP + 1, stream=stream)
    print("beyond the cap")
except Exception as error:
    print("refused", type(error).__name__, str(error).split(":")[0])
buffer = device.allocate(CAP // 2, stream=stream)
print("half", buffer.size == CAP // 2)
buffer.close()
