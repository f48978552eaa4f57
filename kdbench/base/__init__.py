"""What knows nothing of distillation: errors, files, names, progress. Imports no other room."""
