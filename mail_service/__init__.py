"""A nameko microservice that delivers email and never loses one it has confirmed."""

import warnings

__version__ = "0.1.0"

# nameko 2.14 imports pkg_resources, and eventlet 0.41 announces its maintenance mode: neither is news to who runs this.
warnings.filterwarnings("ignore", message=r"(?s).*Eventlet is deprecated")
warnings.filterwarnings("ignore", message=r"pkg_resources is deprecated")
