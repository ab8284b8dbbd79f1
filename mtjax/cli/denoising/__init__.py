"""What mtjax-decode does with a method that denoises canvases."""
