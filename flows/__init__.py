"""One Prefect flow a file: file, function, flow and deployment have the same name. Each reads top to bottom."""
