from .subject import COMPUTED as COMPUTED
from .subject import Subject as Subject
from .subject import compute as compute
from .subject import expected_passes as expected_passes
from .subject import remembered as remembered
