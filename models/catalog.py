"""Every architecture of ours, in the order of listings: the modules that register them when they are imported."""

# isort: off
from exitbench.models import smallcnn  # noqa: F401
from exitbench.models import resnet  # noqa: F401
from exitbench.models import mobilenet  # noqa: F401
from exitbench.models import msdnet  # noqa: F401
from exitbench.models import sdn  # noqa: F401
from exitbench.models import branchynet  # noqa: F401
from exitbench.models import vit_exits  # noqa: F401
