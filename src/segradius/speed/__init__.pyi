from .forms import Choice as Choice
from .forms import Form as Form
from .forms import Speed as Speed
from .speeding import sped_up as sped_up
from .trial import chosen as chosen
