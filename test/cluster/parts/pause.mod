module parts

go 1.26.0
