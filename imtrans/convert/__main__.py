"""``python -m imtrans.convert`` converts a checkpoint of the reference implementation."""

from imtrans.convert.junyanz import main

raise SystemExit(main())
